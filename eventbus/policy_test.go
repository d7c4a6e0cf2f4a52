package eventbus_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
	"github.com/millrace-go/millrace/resilience"
)

func breaker(cfg resilience.CircuitBreakerConfig) *resilience.CircuitBreaker {
	return resilience.Must(resilience.NewCircuitBreaker(cfg))
}

// A breaker that nacks while it is open had 1 message redelivered 136,882 times
// in half a second; a poison queue outside it made 200 dead letters of 200
// messages after 6 calls.
func TestOpenBreakerPausesIntake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		start := time.Now()
		var calls, highest atomic.Int32
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(_ context.Context, e eventbus.Event[orderPlaced]) error {
			calls.Add(1)
			highest.Store(max(highest.Load(), int32(e.Attempt)))
			if time.Since(start) < 20*time.Minute {
				return errors.New("payment provider is down")
			}
			return nil
		}, eventbus.Concurrency(4), eventbus.Through(breaker(resilience.CircuitBreakerConfig{Failures: 6, OpenFor: 30 * time.Second})))
		h.Start(svc)
		const events = 200
		for i := range events {
			place(t, h.Bus(), fmt.Sprint(i))
		}
		time.Sleep(30 * time.Minute) // virtual
		h.AwaitIdle()
		require.Empty(t, h.DeadLetters(), "calls that were turned away cost no attempt")
		require.Less(t, calls.Load(), int32(events+60), "calls while the provider was down: one probe per 30 s")
		require.LessOrEqual(t, highest.Load(), int32(6), "deliveries of one event")
	})
}

func TestPausedIntakeStopsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		b := breaker(resilience.CircuitBreakerConfig{})
		b.Isolate()
		var calls atomic.Int32
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			calls.Add(1)
			return nil
		}, eventbus.Through(b))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- svc.Run(ctx) }()
		<-svc.Ready()
		place(t, h.Bus(), "1")
		time.Sleep(time.Hour) // virtual
		before := time.Now()
		stop()
		require.NoError(t, <-ended)
		require.Zero(t, time.Since(before))
		require.Zero(t, calls.Load())
	})
}

func TestEachCallOfAPolicyIsOneOfTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		var calls int
		var ids []string
		var previous []int
		svc := eventbus.NewService("billing", h.Bus())
		retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{Attempts: 3}))
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
			calls++
			require.Equal(t, "1", e.Data.OrderID)
			require.NoError(t, ctx.Err())
			previous = append(previous, resilience.PreviousAttempts(ctx))
			m, err := ordersPlaced.Message(ctx, h.Bus(), orderPlaced{})
			require.NoError(t, err)
			ids = append(ids, m.UUID)
			e.Metadata["scribble"] = "x"
			if calls < 3 {
				return errors.New("not yet")
			}
			return nil
		}, eventbus.Through(retry))
		h.Start(svc)
		place(t, h.Bus(), "1")
		h.AwaitIdle()
		require.Equal(t, 3, calls)
		require.Equal(t, []int{0, 1, 2}, previous)
		require.Equal(t, ids[0], ids[1], "a repeated handler publishes the same ids")
		require.Equal(t, ids[0], ids[2])
	})
}

func TestPolicyThatPanicsIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error { return nil },
			eventbus.Retry(eventbus.RetryPolicy{Tries: 1, Delays: []time.Duration{}}),
			eventbus.Through(resilience.PolicyFunc(func(context.Context, func(context.Context) error) error { panic("broken policy") })))
		h.Start(svc)
		place(t, h.Bus(), "1")
		h.AwaitIdle()
		require.Len(t, h.DeadLetters(), 1)
		require.Contains(t, h.DeadLetters()[0].Cause, "broken policy")
	})
}

func TestExpiredEventsAreDeadLettersAndNotHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		var calls int
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			calls++
			return nil
		})
		h.Start(svc)
		require.NoError(t, ordersPlaced.Publish(t.Context(), h.Bus(), orderPlaced{OrderID: "1"}, eventbus.WithExpiry(time.Now().Add(-time.Second))))
		h.AwaitIdle()
		require.Zero(t, calls)
		require.Len(t, h.DeadLetters(), 1)
		require.Contains(t, h.DeadLetters()[0].Cause, eventbus.ErrExpired.Error())
	})
}

func TestExpiryBoundsHandlerRetriesAndWhatItPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		expiry := time.Now().Add(20 * time.Second).UTC()
		var last time.Time
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
			last = time.Now()
			require.True(t, expiry.Equal(e.ExpiryTime))
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			require.False(t, deadline.After(expiry))
			m, err := ordersPlaced.Message(ctx, h.Bus(), orderPlaced{})
			require.NoError(t, err)
			require.Equal(t, expiry.Format(time.RFC3339Nano), m.Metadata[eventbus.MetadataExpiryTime], "inherited")
			return errors.New("not today")
		})
		h.Start(svc)
		require.NoError(t, ordersPlaced.Publish(t.Context(), h.Bus(), orderPlaced{OrderID: "1"}, eventbus.WithExpiry(expiry)))
		time.Sleep(time.Hour) // virtual
		h.AwaitIdle()
		require.True(t, last.Before(expiry))
		require.Len(t, h.DeadLetters(), 1)
		require.Contains(t, h.DeadLetters()[0].Cause, "not today")
		require.Contains(t, h.DeadLetters()[0].Cause, eventbus.ErrExpired.Error())
	})
}

func TestUnreadableExpiryIsADeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error { return nil })
		h.Start(svc)
		m, err := ordersPlaced.Message(t.Context(), h.Bus(), orderPlaced{OrderID: "1"})
		require.NoError(t, err)
		m.Metadata[eventbus.MetadataExpiryTime] = "tomorrow"
		require.NoError(t, h.Bus().Publish(ordersPlaced.Name(), m))
		h.AwaitIdle()
		require.Len(t, h.DeadLetters(), 1)
		require.Contains(t, h.DeadLetters()[0].Cause, "expirytime")
	})
}

func TestRetriesInsideAHandlerAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{Attempts: 3}))
		var calls int
		var travelled string
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
			m, err := ordersPlaced.Message(ctx, h.Bus(), orderPlaced{})
			require.NoError(t, err)
			travelled = m.Metadata[eventbus.MetadataPreviousAttempts]
			return retry.Do(ctx, func(context.Context) error {
				calls++
				return errors.New("payment provider is down")
			})
		}, eventbus.Retry(eventbus.RetryPolicy{Tries: 2, Delays: []time.Duration{time.Second}}))
		h.Start(svc)
		place(t, h.Bus(), "1")
		time.Sleep(time.Minute) // virtual
		h.AwaitIdle()
		require.Len(t, h.DeadLetters(), 1)
		require.Equal(t, 3+1+1+1, calls, "two deliveries of two tries: only the first one retries within")
		require.Equal(t, "2", travelled)
	})
}

// A Retry as the policy retries the first try only: the others are retries.
func TestRetriesOfAPolicyAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		var previous []int
		svc := eventbus.NewService("billing", h.Bus())
		retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{Attempts: 3}))
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, _ eventbus.Event[orderPlaced]) error {
			previous = append(previous, resilience.PreviousAttempts(ctx))
			return errors.New("payment provider is down")
		}, eventbus.Through(retry), eventbus.Retry(eventbus.RetryPolicy{Tries: 2, Delays: []time.Duration{time.Second}}))
		h.Start(svc)
		place(t, h.Bus(), "1")
		time.Sleep(time.Minute) // virtual
		h.AwaitIdle()
		require.Len(t, h.DeadLetters(), 1)
		require.Equal(t, []int{0, 1, 2, 1, 1, 2}, previous)
	})
}

// A breaker that a handler uses is none of the policy's: the handler was called,
// and must not be called again without end.
func TestRejectionsWithinAHandlerAreFailures(t *testing.T) {
	for name, test := range map[string]struct {
		mark  func(error) error
		calls int32
	}{
		"as they are": {func(err error) error { return err }, 2},
		"permanent":   {eventbus.Permanent, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := eventbustest.New(t)
				inner := breaker(resilience.CircuitBreakerConfig{})
				inner.Isolate()
				var calls atomic.Int32
				svc := eventbus.NewService("billing", h.Bus())
				eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, _ eventbus.Event[orderPlaced]) error {
					calls.Add(1)
					return test.mark(inner.Do(ctx, func(context.Context) error { return nil }))
				}, eventbus.Through(breaker(resilience.CircuitBreakerConfig{})),
					eventbus.Retry(eventbus.RetryPolicy{Tries: 1, Delays: []time.Duration{time.Second}}))
				h.Start(svc)
				place(t, h.Bus(), "1")
				time.Sleep(time.Minute) // virtual
				h.AwaitIdle()
				require.Len(t, h.DeadLetters(), 1)
				require.Equal(t, test.calls, calls.Load())
			})
		})
	}
}

// Somebody will have two calls handle one event at a time. They share no memory.
func TestHedgedHandlersHaveMessagesOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		var calls atomic.Int32
		svc := eventbus.NewService("billing", h.Bus())
		hedge := resilience.Must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second}))
		eventbus.Subscribe(svc, ordersPlaced, func(_ context.Context, e eventbus.Event[orderPlaced]) error {
			e.Metadata["scribble"] = fmt.Sprint(calls.Add(1))
			time.Sleep(3 * time.Second) // virtual
			return nil
		}, eventbus.Through(hedge))
		h.Start(svc)
		place(t, h.Bus(), "1")
		h.AwaitIdle()
		require.EqualValues(t, 2, calls.Load())
	})
}

func TestCancelledCallsOfAHandlerAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		var calls atomic.Int32
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			if calls.Add(1) < 3 {
				return fmt.Errorf("the other side has hung up: %w", context.Canceled)
			}
			return nil
		}, eventbus.Through(breaker(resilience.CircuitBreakerConfig{Failures: 1})))
		h.Start(svc)
		place(t, h.Bus(), "1")
		h.AwaitIdle()
		require.EqualValues(t, 3, calls.Load())
		require.Empty(t, h.DeadLetters())
	})
}
