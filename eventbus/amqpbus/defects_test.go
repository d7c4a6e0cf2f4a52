package amqpbus

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestExpiredPublishesAreLetGoOfWhileTheBrokerIsAway(t *testing.T) {
	w := newWay(t, "")
	b := openAt(t, w.url)
	topic := topicFor(t)
	w.cut()
	payload := strings.Repeat("x", 64<<10)
	before := heap()
	for range 500 {
		m := msg("k", payload)
		m.UUID = "id"
		ctx, cancel := context.WithCancel(t.Context())
		m.SetContext(ctx)
		stop := time.AfterFunc(100*time.Microsecond, cancel)
		require.ErrorIs(t, b.Publish(topic, m), context.Canceled)
		stop.Stop()
	}
	require.Less(t, heap()-before, int64(8<<20), "500 payloads are 31 MiB")
}

// letters makes a call of n events.
func letters(n int) (waits *call, events []outgoing) {
	c := &call{done: make(chan struct{}), open: n, errs: make([]error, n)}
	events = make([]outgoing, n)
	for i := range events {
		events[i].call, events[i].index, c.errs[i] = c, i, errUnsent
	}
	return c, events
}

func TestAbandonedEventsAreLetGoOfWhereverTheyAre(t *testing.T) {
	p := &pipe{wake: make(chan struct{}, 1)}
	lost, events := letters(4)
	live, others := letters(1)
	require.True(t, p.add(events))
	require.True(t, p.add(others))
	p.takeBack(p.take())
	flying := p.take()
	_ = p.outcome(lost, []*message.Message{msg("", 0), msg("", 1), msg("", 2), msg("", 3)}, context.Canceled)
	require.Empty(t, p.returned)
	require.Len(t, p.waiting, 1)
	p.giveBack([]*outgoing{flying})
	require.Len(t, p.waiting, 1, "what was on its way is let go of when it comes back")
	require.Same(t, live, p.take().call)
}

func TestPublishSaysWhetherAnEventMayHaveBeenPublished(t *testing.T) {
	p := &pipe{topic: "t", wake: make(chan struct{}, 1)}
	c, events := letters(3)
	require.True(t, p.add(events))
	p.settle(p.take(), errRefused)
	p.take()
	err := p.outcome(c, []*message.Message{msg("", 0), msg("", 1), msg("", 2)}, context.Canceled)
	var batch *driver.BatchError
	require.ErrorAs(t, err, &batch)
	require.EqualError(t, batch.Errs[0], `amqpbus: topic "t": event id-0 was not published: the broker refused it (nack)`)
	require.EqualError(t, batch.Errs[1], `amqpbus: topic "t": event id-1 may or may not have been published: context canceled`)
	require.EqualError(t, batch.Errs[2], `amqpbus: topic "t": event id-2 was not published: context canceled`)
}

func TestTheWriterIsWokenWhenCarefulModeEnds(t *testing.T) {
	p := &pipe{wake: make(chan struct{}, 1)}
	_, events := letters(2)
	require.True(t, p.add(events))
	<-p.wake
	p.beCareful(1)
	w := &writer{p: p, inFlight: 1, epoch: time.Now()}
	w.settle(p.take(), nil)
	require.Len(t, p.wake, 1)
}

func TestARefusalOfAccessFailsNoOtherEvents(t *testing.T) {
	p := &pipe{wake: make(chan struct{}, 1)}
	c, events := letters(2)
	w := &writer{p: p, s: &session{gone: make(chan struct{})}, lost: []*outgoing{&events[0], &events[1]}}
	why := &amqp.Error{Code: amqp.AccessRefused, Server: true}
	w.recover(why)
	require.Equal(t, 2, c.open)
	require.Equal(t, 1, p.window())
	w.lost = []*outgoing{p.take()}
	w.recover(why)
	require.ErrorContains(t, c.errs[0], "this user may not publish to it")
	require.ErrorIs(t, c.errs[1], errUnsent)
}

func TestAnEventOverTheBrokersLimitIsTooLarge(t *testing.T) {
	err := explainRefusal(&amqp.Error{Code: amqp.PreconditionFailed, Reason: "PRECONDITION_FAILED - message size 17 is larger than configured max size 16", Server: true})
	require.ErrorIs(t, err, driver.ErrTooLarge)
	require.True(t, driver.IsPermanent(err))
	require.NotErrorIs(t, explainRefusal(&amqp.Error{Code: amqp.PreconditionFailed}), driver.ErrTooLarge)
}

func TestWhatTheBrokerDoesNotAnswerEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := &Broker{creating: make(chan struct{}, 1)}
	b.creating <- struct{}{}
	require.ErrorIs(t, b.createGroup(ctx, nil, groupNames{}, driver.StartOldest), context.Canceled)
	answer := make(chan struct{})
	require.ErrorIs(t, b.within(ctx, func() error { <-answer; return nil }), context.Canceled)
	close(answer)
	b.calls.Wait()
}

// RabbitMQ stops reading from connections that publish when it is low on memory
// or disk, and acknowledgements would not reach it.
func TestTheConnectionOfAcknowledgementsPublishesNothing(t *testing.T) {
	b := openWith(t, "")
	topic := topicFor(t)
	require.NoError(t, b.Publish(topic, msg("k", 1)), "for the group to claim")
	got := deliveries()
	start(t, b, driver.Subscription{Topic: topic, Handle: into(got)})
	require.Equal(t, "1", text(receive(t, got)))
	speaking, err := b.speaking.get(t.Context())
	require.NoError(t, err)
	why := "low on memory"
	speaking.blocked.Store(&why)
	require.NoError(t, b.Publish(topic, msg("k", 2)))
	require.Equal(t, "2", text(receive(t, got)))
	eventually(t, "it is acknowledged", func() bool {
		q, err := raw(t).QueueDeclarePassive(b.queueOf(topic, "k"), true, false, false, false, nil)
		return err == nil && q.Messages == 0
	})
	consuming, err := b.consuming.get(t.Context())
	require.NoError(t, err)
	require.Nil(t, consuming.blocked.Load())
}

func (b *Broker) queueOf(topic, key string) string {
	n := namesOf(topic, "g", b.cfg.Queues, b.cfg.QueueType)
	return n.queues[slotOf(key)%len(n.queues)]
}

func TestAWordNeverWaitsForTheBroker(t *testing.T) {
	m := newMembership("members")
	m.ch = &amqp.Channel{}
	for range 100 {
		m.say(saysHere)
	}
	l := newLink(&Config{}, "members")
	l.started = true // without a connection
	ctx, mute := context.WithCancel(t.Context())
	go m.speak(ctx, l)
	m.hush()
	mute()
	receive(t, m.said)
}

func TestUnprovisionedClientsRefuseGroupsMadeOtherwise(t *testing.T) {
	topic := topicFor(t)
	require.NoError(t, openWith(t, "?queues=8&queue_type=classic").Provision(t.Context(), topic, "g"))
	s := driver.Subscription{Topic: topic, Group: "g", Concurrency: 1, Handle: into(nil)}
	for _, params := range []string{"&queues=4&queue_type=classic", "&queues=8&queue_type=quorum"} {
		_, err := openWith(t, "?provision=false"+params).Subscribe(t.Context(), s)
		require.True(t, driver.IsPermanent(err))
		require.ErrorContains(t, err, "the group was created with other queues: it has queues=8 and queue_type=classic, this is configured for queues=")
	}
	_, err := openWith(t, "?provision=false&queues=8&queue_type=classic").Subscribe(t.Context(), s)
	require.NoError(t, err)
}

func TestASlowHandlerOfALostConnectionDelaysNoOtherQueue(t *testing.T) {
	w := newWay(t, "?queues=2&revoke_timeout=1h")
	b := openAt(t, w.url)
	topic := topicFor(t)
	release, got := make(chan struct{}), deliveries()
	defer start(t, b, driver.Subscription{Topic: topic, Concurrency: 4, Handle: func(d *driver.Delivery) driver.Result {
		got <- d
		if d.Key == "slow" {
			<-release
		}
		return driver.Result{}
	}})()
	defer close(release)
	require.NoError(t, b.Publish(topic, msg("slow", "slow")))
	require.Equal(t, "slow", text(receive(t, got)))
	other := "a"
	for b.queueOf(topic, other) == b.queueOf(topic, "slow") {
		other += "a"
	}
	w.cut()
	w.mend()
	require.NoError(t, b.Publish(topic, msg(other, 1)))
	require.Equal(t, "1", text(receive(t, got)))
}

func TestUncountedRetriesAreNotRemembered(t *testing.T) {
	var a attempts
	a.note("counted", 2)
	a.note("uncounted", 1)
	require.Len(t, a.next, 1)
	a.note("counted", 1)
	require.Empty(t, a.next)
}

func TestNoQueueOfAKilledClientIsLeft(t *testing.T) {
	b := openWith(t, "?queues=2")
	topic := topicFor(t)
	leave := func(name string) {
		_, err := raw(t).QueueDeclare(name, true, false, false, false, amqp.Table{"x-queue-type": "classic"})
		require.NoError(t, err)
	}
	leave(topic + ":g:new")
	require.NoError(t, b.Provision(t.Context(), topic, "g"))
	s, err := b.consuming.get(t.Context())
	require.NoError(t, err)
	left := func(name string) bool {
		_, ok, err := s.hasQueue(name)
		require.NoError(t, err)
		return ok
	}
	require.False(t, left(topic+":g:new"))
	leave(topic + ":g:new")
	leave(topic + ":unclaimed:new")
	require.NoError(t, b.RemoveGroup(t.Context(), topic, "g"))
	require.NoError(t, b.RemoveTopic(t.Context(), topic))
	require.False(t, left(topic+":g:new"))
	require.False(t, left(topic+":unclaimed:new"))
}

func TestASilentHostLeavesTimeForTheOthers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	c := testConfig(t)
	c.Hosts = append(c.Hosts, l.Addr().String())
	for range 4 {
		ctx, cancel := contextFor(t, time.Second)
		b, err := Open(ctx, c)
		cancel()
		require.NoError(t, err)
		require.NoError(t, b.Close())
	}
}

func TestAUserNeedsAPasswordOrACertificate(t *testing.T) {
	for raw, ok := range map[string]bool{
		"amqp://user@h": false, "amqp://user:@h": true, "amqps://user@h?sasl=plain": false, "amqps://user@h?sasl=external": true,
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		if _, err = configOf(u); ok {
			require.NoError(t, err, raw)
			continue
		}
		require.EqualError(t, err, fmt.Sprintf("the URL has a user but no password; write %s://user:password@host", u.Scheme))
	}
	_, err := Open(t.Context(), Config{External: true, TLS: &tls.Config{MinVersion: tls.VersionTLS12}})
	require.EqualError(t, err, "amqpbus: External needs TLS with a client certificate")
}
