package amqpbus

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func inQueue(t testing.TB, name string) int {
	t.Helper()
	q, err := raw(t).QueueDeclarePassive(name, true, false, false, false, nil)
	require.NoError(t, err)
	return q.Messages
}

// Unroutable messages vanish where mandatory returns are not watched.
func TestReturnedEventsAreKeptForTheFirstGroup(t *testing.T) {
	for _, queueType := range []string{QuorumQueue, ClassicQueue} {
		t.Run(queueType, func(t *testing.T) {
			b := openWith(t, "?queue_type="+queueType)
			topic := topicFor(t, "newest", "later")
			var batch []*message.Message
			const n = 600 // more than one round of claims
			for i := range n {
				batch = append(batch, msg(fmt.Sprint("k", i%7), i))
			}
			require.NoError(t, b.Publish(topic, batch[:n/2]...))
			for _, m := range batch[n/2:] {
				require.NoError(t, b.Publish(topic, m))
			}
			eventually(t, "all are kept", func() bool { return inQueue(t, unclaimed(topic)) == n })
			newest := deliveries()
			start(t, b, driver.Subscription{Topic: topic, Group: "newest", Start: driver.StartNewest, Handle: into(newest)})

			got := deliveries()
			start(t, b, driver.Subscription{Topic: topic, Concurrency: 4, Handle: into(got)})
			require.NoError(t, b.Publish(topic, msg("k0", n)))
			last := map[string]int{}
			for range n + 1 {
				d := receive(t, got)
				var i int
				_, err := fmt.Sscan(text(d), &i)
				require.NoError(t, err)
				before, known := last[d.Key]
				require.True(t, !known || before < i, "key %s: %d after %d", d.Key, i, before)
				last[d.Key] = i
			}
			later := deliveries()
			start(t, b, driver.Subscription{Topic: topic, Group: "later", Handle: into(later)})
			require.NoError(t, b.Publish(topic, msg("k", "sentinel")))
			require.Equal(t, fmt.Sprint(n), text(receive(t, newest)), "the first event after it was created")
			require.Equal(t, "sentinel", text(receive(t, later)), "the events of before are the first group's")
			require.Zero(t, inQueue(t, unclaimed(topic)))
		})
	}
}

// An event that was returned but parked after the group had been created.
func TestLateUnclaimedEventsReachARunningGroup(t *testing.T) {
	b := openWith(t, "")
	topic := topicFor(t)
	require.NoError(t, b.Publish(topic, msg("k", "early")))
	got := deliveries()
	start(t, b, driver.Subscription{Topic: topic, Handle: into(got)})
	require.Equal(t, "early", text(receive(t, got)))
	p, err := encode(msg("k", "late"), []byte("late"))
	require.NoError(t, err)
	require.NoError(t, raw(t).Publish("", unclaimed(topic), true, false, p))
	require.Equal(t, "late", text(receive(t, got)))
}

func TestUnclaimedEventsAreKeptForTheRetention(t *testing.T) {
	b := openWith(t, "?retention=1s")
	topic := topicFor(t)
	require.NoError(t, b.Publish(topic, msg("k", "old")))
	require.Equal(t, 1, inQueue(t, unclaimed(topic)))
	eventually(t, "it expires", func() bool { return inQueue(t, unclaimed(topic)) == 0 })
}

func TestPublishWithoutProvisionToATopicWithoutGroups(t *testing.T) {
	b, bare := openWith(t, ""), openWith(t, "?provision=false")
	topic := topicFor(t)
	require.NoError(t, raw(t).ExchangeDeclare(topic, "fanout", true, false, false, false, nil))
	err := bare.Publish(topic, msg("k", 1))
	require.EqualError(t, err, fmt.Sprintf(`amqpbus: topic %q: event id-1 was not published: nobody would get the event: the topic has no group, and no queue "%s:unclaimed" to keep it for the first; create either with Broker.Provision`, topic, topic))
	require.False(t, driver.IsPermanent(err))
	require.NoError(t, b.Provision(t.Context(), topic))
	require.NoError(t, bare.Publish(topic, msg("k", 1)))
	require.Equal(t, 1, inQueue(t, unclaimed(topic)))
}

func TestProvisionedGroupsNeedNoPermissionToCreate(t *testing.T) {
	b, bare := openWith(t, ""), openWith(t, "?provision=false")
	topic := topicFor(t)
	require.NoError(t, b.Provision(t.Context(), topic, "g"))
	got := deliveries()
	start(t, bare, driver.Subscription{Topic: topic, Handle: into(got)})
	require.NoError(t, bare.Publish(topic, msg("k", 1)))
	require.Equal(t, "1", text(receive(t, got)))
	require.ErrorIs(t, b.RemoveGroup(t.Context(), topic, "g"), driver.ErrBusy)
	require.ErrorIs(t, b.Provision(t.Context(), "bad name"), driver.ErrInvalidName)
	require.ErrorIs(t, b.Provision(t.Context(), topic, "bad name"), driver.ErrInvalidName)
}

// One goroutine's events of one key keep their order, alone or in batches, and
// so do those of many at a time.
func TestPublishKeepsOrderPerKey(t *testing.T) {
	b := openWith(t, "")
	topic := topicFor(t)
	got := deliveries()
	start(t, b, driver.Subscription{Topic: topic, Concurrency: 8, Handle: into(got)})
	const publishers, each = 16, 60
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := 0; i < each; i += 3 {
				key := fmt.Sprint("p", p)
				if err := b.Publish(topic, msg(key, i), msg(key, i+1), msg(key, i+2)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	last := map[string]int{}
	for range publishers * each {
		d := receive(t, got)
		require.Equal(t, fmt.Sprint(last[d.Key]), text(d), d.Key)
		last[d.Key]++
	}
}

// A header that RabbitMQ refuses takes the channel and all that is on its way
// with it: only the event at fault may fail.
func TestAnEventThatTheBrokerRefusesFailsAlone(t *testing.T) {
	b := openWith(t, "")
	topic := topicFor(t)
	got := deliveries()
	start(t, b, driver.Subscription{Topic: topic, Handle: into(got)})
	events, err := b.encodeAll(topic, []*message.Message{msg("k", 0), msg("k", 1), msg("k", 2)})
	require.NoError(t, err)
	events[1].event.Headers["CC"] = "no array"
	c := &call{done: make(chan struct{}), open: 3, errs: make([]error, 3)}
	for i := range events {
		events[i].call, events[i].index = c, i
	}
	_, err = b.send(topic, events)
	require.NoError(t, err)
	receive(t, c.done)
	require.NoError(t, c.errs[0])
	require.ErrorContains(t, c.errs[1], "the broker does not take it")
	require.True(t, driver.IsPermanent(c.errs[1]))
	require.NoError(t, c.errs[2])
	for text(receive(t, got)) != "2" {
		continue
	}
}

// RabbitMQ blocks connections that publish while it is low on memory or disk.
func TestPublishWaitsWhileTheBrokerTakesNone(t *testing.T) {
	b := openWith(t, "")
	topic := topicFor(t)
	require.NoError(t, b.Publish(topic, msg("k", 1)))
	s, err := b.publishing.get(t.Context())
	require.NoError(t, err)
	why := "low on memory"
	s.blocked.Store(&why)
	ctx, cancel := contextFor(t, 100*time.Millisecond)
	defer cancel()
	m := msg("k", 2)
	m.SetContext(ctx)
	err = b.Publish(topic, m)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "the broker takes no publishes at the moment: low on memory")
	published := make(chan error, 1)
	go func() { published <- b.Publish(topic, msg("k", 3)) }()
	s.blocked.Store(nil)
	require.NoError(t, receive(t, published))
	require.Equal(t, 2, inQueue(t, unclaimed(topic)))
}

func TestPublishRecoversFromADeletedTopic(t *testing.T) {
	b := openWith(t, "")
	topic := topicFor(t)
	require.NoError(t, b.Publish(topic, msg("k", 1)))
	require.NoError(t, raw(t).ExchangeDelete(topic, false, false))
	require.NoError(t, b.Publish(topic, msg("k", 2)))
	require.Equal(t, 2, inQueue(t, unclaimed(topic)))
}

func TestPublishForLaterIsRefused(t *testing.T) {
	b := openWith(t, "")
	m := msg("k", 1)
	driver.SetDue(m, time.Now().Add(time.Hour))
	err := b.Publish("t", m)
	require.ErrorIs(t, err, driver.ErrUnsupported)
	require.True(t, driver.IsPermanent(err))
}

func TestReservedNamesAreRefused(t *testing.T) {
	b := openWith(t, "")
	for _, err := range []error{
		b.Publish("amq.fanout", msg("k", 1)),
		b.Provision(t.Context(), "amq.x"),
		b.RemoveTopic(t.Context(), "amq.fanout"),
		b.RemoveGroup(t.Context(), "amq.fanout", "g"),
	} {
		require.ErrorIs(t, err, driver.ErrInvalidName)
		require.ErrorContains(t, err, `RabbitMQ keeps names that begin with "amq." to itself`)
	}
}

func TestLongNamesWork(t *testing.T) {
	b := openWith(t, "")
	topic, group := topicFor(t, strings.Repeat("g", 249)), strings.Repeat("g", 249)
	got := deliveries()
	require.NoError(t, b.Publish(topic, msg("k", 1)))
	start(t, b, driver.Subscription{Topic: topic, Group: group, Handle: into(got)})
	require.NoError(t, b.Publish(topic, msg("k", 2)))
	require.Equal(t, "1", text(receive(t, got)))
	require.Equal(t, "2", text(receive(t, got)))
}

func TestIdlePipesEnd(t *testing.T) {
	b := openWith(t, "?provision=false")
	for i := range 5 {
		require.ErrorIs(t, b.Publish(fmt.Sprint("none-", i), msg("k", 1)), driver.ErrNotProvisioned)
	}
	eventually(t, "no pipe is left", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.pipes) == 0
	})
}
