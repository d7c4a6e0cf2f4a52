package eventbus_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
	"github.com/millrace-go/millrace/eventbus/membus"
)

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

// A nil pointer in an error interface panics when asked for its text.
func TestErrorThatCannotBeReadIsAFailureLikeAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			return (*nilError)(nil)
		}, eventbus.Retry(eventbus.RetryPolicy{Tries: 1, Delays: []time.Duration{}}))
		h.Start(svc)
		place(t, h.Bus(), "o-1")
		h.AwaitIdle()
		require.Contains(t, h.DeadLetters()[0].Cause, "the handler returned an error of type *eventbus_test.nilError that can't be read")
	})
}

func TestRetryAfterWithoutRedeliveriesIsTriedInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		start := time.Now()
		var calls []time.Duration
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			calls = append(calls, time.Since(start))
			return eventbus.RetryAfter(errors.New("busy"), time.Second)
		}, eventbus.Retry(eventbus.RetryPolicy{Tries: 3, Delays: []time.Duration{}}))
		h.Start(svc)
		place(t, h.Bus(), "o-1")
		h.AwaitIdle()
		require.Equal(t, []time.Duration{0, time.Second, 2 * time.Second}, calls)
		require.Len(t, h.DeadLetters(), 1)
	})
}

// refusing is a memory broker that does not take events of one topic.
type refusing struct {
	driver.Broker
	topic   string
	refuses atomic.Bool
}

func (r *refusing) Publish(topic string, m ...*message.Message) error {
	if topic == r.topic && r.refuses.Load() {
		return driver.Permanent(errors.New("no such topic"))
	}
	return r.Broker.Publish(topic, m...)
}

func TestHandlerIsNotCalledAgainWhileItsDeadLetterCannotBePublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory, err := membus.New(membus.Config{})
		require.NoError(t, err)
		broker := &refusing{Broker: memory, topic: "billing.dead-letter"}
		broker.refuses.Store(true)
		bus, err := eventbus.New(broker)
		require.NoError(t, err)
		var calls atomic.Int32
		svc := eventbus.NewService("billing", bus)
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			calls.Add(1)
			return eventbus.Permanent(errors.New("bad order"))
		})
		stop := run(t, svc)
		place(t, bus, "o-1")
		time.Sleep(time.Hour) // virtual
		require.EqualValues(t, 1, calls.Load())
		broker.refuses.Store(false)
		dead := make(chan eventbus.DeadLetter, 1)
		ops := eventbus.NewService("ops", bus)
		ops.Handle("billing.dead-letter", readDeadLetter(dead))
		stopOps := run(t, ops)
		require.Equal(t, "bad order", (<-dead).Cause)
		require.EqualValues(t, 1, calls.Load())
		require.NoError(t, stop())
		require.NoError(t, stopOps())
		require.NoError(t, bus.Close())
	})
}

// A deploy that interrupts a handler is not the event's fault.
func TestInterruptedDeliveriesDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := openMemory(t)
		started := make(chan int, 1)
		service := func() *eventbus.Service {
			svc := eventbus.NewService("billing", bus, eventbus.DrainTimeout(0))
			eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
				started <- e.Attempt
				<-ctx.Done()
				return ctx.Err()
			})
			return svc
		}
		place(t, bus, "o-1")
		for range 8 {
			stop := run(t, service())
			require.Equal(t, 1, <-started)
			require.NoError(t, stop())
		}
	})
}

func TestDeadLetterOfADeadLetterKeepsTheOriginal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		fails := func(text string) func(context.Context, eventbus.Event[orderPlaced]) error {
			return func(context.Context, eventbus.Event[orderPlaced]) error {
				return eventbus.Permanent(errors.New(text))
			}
		}
		billing := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(billing, ordersPlaced, fails("bad order"))
		ops := eventbus.NewService("ops", h.Bus())
		eventbus.Subscribe(ops, eventbus.NewTopic[orderPlaced]("billing.dead-letter"), fails("ops is down"))
		h.Start(billing)
		h.Start(ops)
		place(t, h.Bus(), "o-1")
		h.AwaitIdle()
		dead := h.DeadLetters()
		require.Len(t, dead, 2)
		require.Equal(t, "orders.placed", dead[1].Topic)
		require.Equal(t, "billing", dead[1].Group)
		require.Equal(t, "bad order", dead[1].Cause)
		require.Equal(t, `group "ops": ops is down`, dead[1].Again)
	})
}

// What a handler does to a message must not be seen by the next try, by ids
// derived from it, or by the dead letter.
func TestEachTryBeginsWithTheMessageAsItArrived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		var ids, sources []string
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
			sources = append(sources, e.Metadata["ce_source"])
			e.Metadata["ce_id"] = "other"
			delete(e.Metadata, "ce_source")
			var c capture
			require.NoError(t, ordersBilled.Publish(ctx, &c, e.Data))
			ids = append(ids, c.messages[0].UUID)
			require.NotEqual(t, "other", c.messages[0].Metadata["ce_causationid"])
			return errors.New("fails")
		}, eventbus.Retry(eventbus.RetryPolicy{Tries: 3, Delays: []time.Duration{}}))
		h.Start(svc)
		place(t, h.Bus(), "o-1")
		h.AwaitIdle()
		require.Len(t, ids, 3)
		require.Equal(t, ids[0], ids[1])
		require.Equal(t, ids[0], ids[2])
		require.Equal(t, []string{sources[0], sources[0], sources[0]}, sources)
		require.NotEmpty(t, sources[0])
		dead := h.DeadLetters()[0].Message
		require.Equal(t, dead.UUID, dead.Metadata["ce_id"])
		require.Equal(t, sources[0], dead.Metadata["ce_source"])
	})
}

// Ids are unique within a source only; events of two sources, or topics, must
// not have the same children.
func TestChildrenOfDifferentParentsHaveDifferentIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		svc := eventbus.NewService("billing", h.Bus())
		for _, topic := range []eventbus.Topic[orderPlaced]{ordersPlaced, eventbus.NewTopic[orderPlaced]("orders.imported")} {
			eventbus.Subscribe(svc, topic, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
				return ordersBilled.Publish(ctx, h.Bus(), e.Data)
			})
		}
		h.Start(svc)
		for _, from := range []struct{ topic, source string }{{"orders.placed", "/erp"}, {"orders.placed", "/shop"}, {"orders.imported", "/erp"}} {
			m := message.NewMessage("1", []byte("{}"))
			m.Metadata["ce_id"], m.Metadata["ce_source"] = "1", from.source
			require.NoError(t, h.Bus().Publish(from.topic, m))
		}
		h.AwaitIdle()
		ids := map[string]bool{}
		for _, e := range eventbustest.Published(h, ordersBilled) {
			ids[e.ID] = true
		}
		require.Len(t, ids, 3)
	})
}

// The mark of a redriven event concerns one topic; a copy that somebody
// forwards to another must be handled there.
func TestRedriveMarkDoesNotLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		handled := make(chan string, 1)
		svc := eventbus.NewService("billing", h.Bus())
		svc.Handle("orders.placed", func(m *message.Message) error {
			require.NotContains(t, m.Metadata, eventbus.MetadataRedrive)
			return h.Bus().Publish("orders.copied", m.Copy())
		})
		svc.Handle("orders.copied", func(m *message.Message) error {
			handled <- m.UUID
			return nil
		})
		h.Start(svc)
		m := message.NewMessage("e", []byte("{}"))
		m.Metadata[eventbus.MetadataRedrive] = "orders.placed/billing"
		require.NoError(t, h.Bus().Publish("orders.placed", m))
		require.Equal(t, "e", <-handled)
	})
}

func TestRunnerThatReturnsTheErrorOfItsContextIsACleanStop(t *testing.T) {
	bus := openMemory(t)
	svc := eventbus.NewService("billing", bus)
	svc.Add(eventbus.RunnerFunc(func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}))
	require.NoError(t, run(t, svc)())
}
