package eventbus_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/sony/gobreaker"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
)

// The tests of this file are named after defects of respected systems.

func place(t *testing.T, to message.Publisher, id string) {
	t.Helper()
	require.NoError(t, ordersPlaced.Publish(t.Context(), to, orderPlaced{OrderID: id}))
}

// Watermill: 1 message was redelivered 136,882 times in 0.5 s while the breaker
// was open, and with a poison queue outside it 200 messages became 200 dead
// letters.
func TestTrapOpenBreakerThatNacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		start := time.Now()
		var calls, deliveries atomic.Int32
		svc := eventbus.NewService("billing", h.Bus())
		breaker := middleware.NewCircuitBreaker(gobreaker.Settings{Name: "payments", Timeout: time.Second})
		svc.Use(func(next message.HandlerFunc) message.HandlerFunc {
			return func(m *message.Message) ([]*message.Message, error) {
				deliveries.Add(1)
				return next(m)
			}
		}, breaker.Middleware)
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			calls.Add(1)
			if time.Since(start) < 20*time.Second {
				return errors.New("payment provider is down")
			}
			return nil
		}, eventbus.Concurrency(4))
		h.Start(svc)
		const events = 200
		for i := range events {
			place(t, h.Bus(), fmt.Sprint(i))
		}
		time.Sleep(time.Hour) // virtual
		h.AwaitIdle()
		require.Empty(t, h.DeadLetters())
		require.Less(t, deliveries.Load(), int32(events*20), "deliveries while the breaker was open")
	})
}

// watermill#568: handlers' contexts were cancelled at 0 ms although a close
// timeout was set.
func TestTrapShutdownCancelsHandlersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := openMemory(t)
		started := make(chan struct{})
		result := make(chan error, 1)
		svc := eventbus.NewService("billing", bus, eventbus.DrainTimeout(10*time.Second))
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, _ eventbus.Event[orderPlaced]) error {
			close(started)
			select {
			case <-ctx.Done():
				result <- context.Cause(ctx)
			case <-time.After(9 * time.Second):
				result <- ordersBilled.Publish(ctx, bus, orderPlaced{})
			}
			return nil
		})
		stop := run(t, svc)
		place(t, bus, "o-1")
		<-started
		require.NoError(t, stop())
		require.NoError(t, <-result)
	})
}

func TestHandlerThatOutlastsTheDrainTimeoutIsInterruptedAndItsEventKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := openMemory(t)
		started := make(chan struct{}, 1)
		svc := eventbus.NewService("billing", bus, eventbus.DrainTimeout(time.Second))
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, _ eventbus.Event[orderPlaced]) error {
			started <- struct{}{}
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), eventbus.ErrShutdown)
			return ctx.Err()
		})
		stop := run(t, svc)
		place(t, bus, "o-1")
		<-started
		require.NoError(t, stop())

		again := make(chan int, 1)
		next := eventbus.NewService("billing", bus)
		eventbus.Subscribe(next, ordersPlaced, func(_ context.Context, e eventbus.Event[orderPlaced]) error {
			again <- e.Attempt
			return nil
		})
		stop = run(t, next)
		require.Equal(t, 1, <-again, "not the event's fault")
		require.NoError(t, stop())
	})
}

func TestHandlerThatIgnoresItsContextIsNamedAndRunReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := openMemory(t)
		release := make(chan struct{})
		started := make(chan struct{})
		svc := eventbus.NewService("billing", bus, eventbus.DrainTimeout(time.Second))
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			close(started)
			<-release
			return nil
		})
		stop := run(t, svc)
		place(t, bus, "o-1")
		<-started
		require.EqualError(t, stop(), `eventbus: service "billing": handler of topic "orders.placed" in group "billing": 1 calls still run 5s after their context ended; they must watch ctx`)
		close(release)
	})
}

// watermill#446: one stopping handler closed the publisher that others use.
func TestTrapStoppingHandlerClosesThePublisherOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		first := eventbus.NewService("first", h.Bus())
		eventbus.Subscribe(first, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error { return nil })
		require.NoError(t, run(t, first)())

		second := eventbus.NewService("second", h.Bus())
		eventbus.Subscribe(second, ordersPlaced, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
			return ordersBilled.Publish(ctx, h.Bus(), e.Data)
		})
		h.Start(second)
		place(t, h.Bus(), "o-1")
		eventbustest.AwaitPublished(h, ordersBilled, nil)
	})
}

// watermill#271: a retry that sleeps inside the handler blocks the partition or
// the queue slot.
func TestTrapRetryThatSleepsBlocksTheKeyOrTheSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := openMemory(t)
		var order []int
		done := make(chan struct{})
		svc := eventbus.NewService("billing", bus)
		eventbus.Subscribe(svc, ordersPlaced, func(_ context.Context, e eventbus.Event[orderPlaced]) error {
			order = append(order, e.Data.Total)
			switch {
			case e.Data.Total == 1 && e.Attempt == 1:
				return errors.New("fails once")
			case e.Data.Total == 1:
				close(done)
			}
			return nil
		}, eventbus.Concurrency(1), eventbus.Retry(eventbus.RetryPolicy{Tries: 1, Delays: []time.Duration{time.Hour}}))
		stop := run(t, svc)
		for n := range 3 {
			require.NoError(t, ordersPlaced.Publish(t.Context(), bus, orderPlaced{"same", n + 1}))
		}
		<-done
		require.Equal(t, []int{1, 2, 3, 1}, order)
		require.NoError(t, stop())
	})
}

func TestKeepOrderHoldsTheKeyAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := openMemory(t)
		var order []string
		done := make(chan struct{})
		svc := eventbus.NewService("billing", bus)
		eventbus.Subscribe(svc, ordersPlaced, func(_ context.Context, e eventbus.Event[orderPlaced]) error {
			order = append(order, fmt.Sprint(e.Key, e.Data.Total))
			switch {
			case e.Key == "a" && e.Data.Total == 1 && e.Attempt == 1:
				return errors.New("fails once")
			case e.Key == "a" && e.Data.Total == 2:
				close(done)
			}
			return nil
		}, eventbus.Concurrency(1), eventbus.Retry(eventbus.RetryPolicy{Tries: 1, KeepOrder: true}))
		stop := run(t, svc)
		for _, o := range []orderPlaced{{"a", 1}, {"a", 2}, {"b", 1}} {
			require.NoError(t, ordersPlaced.Publish(t.Context(), bus, o))
		}
		<-done
		require.Equal(t, []string{"a1", "b1", "a1", "a2"}, order)
		require.NoError(t, stop())
	})
}

// Watermill: a failure to publish what a handler returned escaped every
// middleware: 8,686 re-executions, no dead letter.
func TestTrapFailureToPublishOutputEscapesRetryAndDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		elsewhere, err := eventbus.Open(t.Context(), "memory:")
		require.NoError(t, err)
		require.NoError(t, elsewhere.Close())
		var calls atomic.Int32
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
			calls.Add(1)
			return ordersBilled.Publish(ctx, elsewhere, e.Data)
		}, eventbus.Retry(eventbus.RetryPolicy{Tries: 2, Delays: []time.Duration{time.Second}}))
		h.Start(svc)
		place(t, h.Bus(), "o-1")
		time.Sleep(time.Minute) // virtual
		h.AwaitIdle()
		require.EqualValues(t, 4, calls.Load())
		require.Len(t, h.DeadLetters(), 1)
		require.Contains(t, h.DeadLetters()[0].Cause, `topic "orders.billed": broker is closed`)
	})
}

// watermill#467: a timeout middleware left a dead context for the retry outside
// of it.
func TestTrapTimeoutLeavesADeadContextForTheRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		var tries []error
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, _ eventbus.Event[orderPlaced]) error {
			tries = append(tries, ctx.Err())
			if len(tries) < 3 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, eventbus.Timeout(time.Second))
		h.Start(svc)
		place(t, h.Bus(), "o-1")
		h.AwaitIdle()
		require.Equal(t, []error{nil, nil, nil}, tries)
	})
}

// CAP#1815: offsets were committed at shutdown for events that no handler ran.
func TestTrapShutdownAcknowledgesWhatNobodyHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := openMemory(t)
		handled := make(chan string, 10)
		service := func() *eventbus.Service {
			svc := eventbus.NewService("billing", bus, eventbus.Defaults(eventbus.Concurrency(1)))
			eventbus.Subscribe(svc, ordersPlaced, func(_ context.Context, e eventbus.Event[orderPlaced]) error {
				time.Sleep(time.Second) // virtual
				handled <- e.Data.OrderID
				return nil
			})
			return svc
		}
		for i := range 5 {
			place(t, bus, fmt.Sprint(i))
		}
		for range 3 { // each run is stopped while it handles its first event
			stop := run(t, service())
			synctest.Wait()
			require.NoError(t, stop())
		}
		require.Len(t, handled, 3)
		stop := run(t, service())
		time.Sleep(time.Minute) // virtual
		require.NoError(t, stop())
		require.Len(t, handled, 5)
	})
}
