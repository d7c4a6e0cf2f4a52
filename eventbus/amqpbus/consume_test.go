package amqpbus

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// A nack must not become a loop of instant redeliveries by the broker.
func TestNoHotRequeueLoop(t *testing.T) {
	b := openWith(t, "")
	topic := topicFor(t)
	var calls atomic.Int32
	start(t, b, driver.Subscription{Topic: topic, Handle: func(*driver.Delivery) driver.Result {
		calls.Add(1)
		return driver.Result{Redeliver: true, Delay: 200 * time.Millisecond, Hold: true}
	}})
	require.NoError(t, b.Publish(topic, msg("k", 1)))
	eventually(t, "it came again", func() bool { return calls.Load() > 1 })
	before := calls.Load()
	<-time.After(500 * time.Millisecond)
	require.LessOrEqual(t, calls.Load()-before, int32(4))
}

// One key that is held up may not use up the prefetch of its queue.
func TestASlowKeyDoesNotExhaustThePrefetch(t *testing.T) {
	for _, params := range []string{"?queues=1&prefetch=8", "?queues=1&prefetch=8&queue_type=classic"} {
		b := openWith(t, params)
		topic := topicFor(t)
		release := make(chan struct{})
		got := deliveries()
		start(t, b, driver.Subscription{Topic: topic, Concurrency: 4, Handle: func(d *driver.Delivery) driver.Result {
			if d.Key == "slow" {
				<-release
			}
			got <- d
			return driver.Result{}
		}})
		require.NoError(t, b.Publish(topic, msg("slow", "slow")))
		for i := range 200 {
			require.NoError(t, b.Publish(topic, msg(fmt.Sprint("k", i), i)))
		}
		for range 200 {
			require.NotEqual(t, "slow", text(receive(t, got)))
		}
		close(release)
		require.Equal(t, "slow", text(receive(t, got)))
	}
}

// RabbitMQ 4 drops what was delivered 20 times.
func TestTheDeliveryLimitIsOutOfReach(t *testing.T) {
	b := openWith(t, "?queues=1")
	topic := topicFor(t)
	require.NoError(t, b.Provision(t.Context(), topic, "g"))
	_, err := raw(t).QueueDeclare(topic+":g:0", true, false, false, false, amqp.Table{"x-queue-type": "quorum", "x-single-active-consumer": true, "x-delivery-limit": int64(20)})
	require.ErrorContains(t, err, "current is '2147483647'")

	require.NoError(t, b.Publish(topic, msg("k", 1)))
	ch := raw(t)
	again, err := ch.Consume(topic+":g:0", "", false, false, false, false, nil)
	require.NoError(t, err)
	for range 25 {
		d := receive(t, again)
		require.NoError(t, d.Nack(false, true))
	}
	require.NoError(t, ch.Close())
	got := deliveries()
	start(t, b, driver.Subscription{Topic: topic, Handle: into(got)})
	require.Equal(t, 1, receive(t, got).Attempt, "counts of the broker are not ours")
}

func TestWorkMovesWithItsMembers(t *testing.T) {
	b := openWith(t, "?queues=8")
	topic := topicFor(t)
	var mu sync.Mutex
	share := map[int]map[string]bool{}
	member := func(i int) func() {
		return start(t, openWith(t, "?queues=8"), driver.Subscription{Topic: topic, Concurrency: 4, Handle: func(d *driver.Delivery) driver.Result {
			mu.Lock()
			defer mu.Unlock()
			if share[i] == nil {
				share[i] = map[string]bool{}
			}
			share[i][d.Key] = true
			return driver.Result{}
		}})
	}
	spread := func(members ...int) {
		t.Helper()
		n := 0
		eventually(t, "each member has its share and no other", func() bool {
			mu.Lock()
			clear(share)
			mu.Unlock()
			for i := range 64 {
				require.NoError(t, b.Publish(topic, msg(fmt.Sprint("k", i), n)))
				n++
			}
			total := func() (sum int) {
				mu.Lock()
				defer mu.Unlock()
				for _, keys := range share {
					sum += len(keys)
				}
				return sum
			}
			for deadline := time.Now().Add(time.Second); total() < 64 && time.Now().Before(deadline); {
				<-time.After(time.Millisecond)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, i := range members {
				if len(share[i]) < 64/len(members)/3 {
					return false
				}
			}
			return len(share) == len(members)
		})
	}
	member(1)
	spread(1)
	stop2 := member(2)
	spread(1, 2)
	member(3)
	spread(1, 2, 3)
	stop2()
	spread(1, 3)
}

func TestAMemberThatLeavesRepeatsNothing(t *testing.T) {
	b := openWith(t, "")
	topic := topicFor(t)
	const n = 2000
	var mu sync.Mutex
	times := map[string]int{}
	done := make(chan struct{})
	handle := func(d *driver.Delivery) driver.Result {
		mu.Lock()
		defer mu.Unlock()
		if times[text(d)]++; len(times) == n {
			select {
			case <-done:
			default:
				close(done)
			}
		}
		return driver.Result{}
	}
	start(t, b, driver.Subscription{Topic: topic, Concurrency: 4, Handle: handle})
	published := make(chan error, 1)
	go func() {
		for i := 0; i < n; i += 20 {
			var batch []*message.Message
			for j := range 20 {
				batch = append(batch, msg(fmt.Sprint("k", j), i+j))
			}
			if err := b.Publish(topic, batch...); err != nil {
				published <- err
				return
			}
		}
		published <- nil
	}()
	for range 4 {
		start(t, openWith(t, ""), driver.Subscription{Topic: topic, Concurrency: 4, Handle: handle})()
	}
	require.NoError(t, receive(t, published))
	receive(t, done)
	for id, count := range times {
		require.Equal(t, 1, count, id)
	}
}

func TestADeletedQueueIsMadeAgain(t *testing.T) {
	b := openWith(t, "?queues=1")
	topic := topicFor(t)
	got := deliveries()
	start(t, b, driver.Subscription{Topic: topic, Handle: into(got)})
	require.NoError(t, b.Publish(topic, msg("k", 1)))
	require.Equal(t, "1", text(receive(t, got)))
	_, err := raw(t).QueueDelete(topic+":g:0", false, false, false)
	require.NoError(t, err)
	require.NoError(t, b.Publish(topic, msg("k", 2)), "kept for the first group, which this one is")
	require.Equal(t, "2", text(receive(t, got)))
}

func TestRunOfAClosedBroker(t *testing.T) {
	b := openWith(t, "")
	c, err := b.Subscribe(t.Context(), driver.Subscription{Topic: topicFor(t), Group: "g", Concurrency: 1, Handle: into(nil)})
	require.NoError(t, err)
	require.NoError(t, b.Close())
	require.ErrorIs(t, c.Run(context.Background()), driver.ErrClosed)
}

func TestCapabilities(t *testing.T) {
	b := openWith(t, "?max_payload=100")
	require.Equal(t, driver.Capabilities{KeyOrder: true, KeyedConcurrency: true, Groups: true, DelayedRedelivery: true, Durable: true, MaxPayload: 100}, b.Capabilities())
	_, is := any(b).(driver.Seeker)
	require.False(t, is)
}
