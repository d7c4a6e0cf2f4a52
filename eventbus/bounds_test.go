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
	"github.com/millrace-go/millrace/eventbus/eventbustest"
	"github.com/millrace-go/millrace/resilience"
)

// No policy waits until after the expiry and calls the handler then.
func TestPoliciesKnowWhenAnEventExpires(t *testing.T) {
	isolated := breaker(resilience.CircuitBreakerConfig{})
	isolated.Isolate()
	steady := resilience.Backoff{Shape: resilience.Fixed, Base: 4 * time.Second, Jitter: -1}
	for name, test := range map[string]struct {
		policy        eventbus.Policy
		events, calls int
		dead          int
	}{
		"retry":   {resilience.Must(resilience.NewRetry(resilience.RetryConfig{Backoff: steady})), 1, 2, 1},
		"limiter": {resilience.Must(resilience.NewRateLimiter(resilience.RateLimiterConfig{Calls: 1, Per: time.Minute, MaxWait: time.Hour})), 2, 2, 2},
		"breaker": {isolated, 1, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := eventbustest.New(t)
				expiry := time.Now().Add(5 * time.Second)
				var calls, late atomic.Int32
				svc := eventbus.NewService("billing", h.Bus())
				eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
					calls.Add(1)
					if !time.Now().Before(expiry) {
						late.Add(1)
					}
					return errors.New("not today")
				}, eventbus.Through(test.policy), eventbus.Retry(eventbus.RetryPolicy{Tries: 1, Delays: []time.Duration{time.Minute}}))
				h.Start(svc)
				for range test.events {
					require.NoError(t, ordersPlaced.Publish(t.Context(), h.Bus(), orderPlaced{OrderID: "1"}, eventbus.WithExpiry(expiry)))
				}
				time.Sleep(time.Hour) // virtual
				h.AwaitIdle()
				require.Zero(t, late.Load())
				require.LessOrEqual(t, int(calls.Load()), test.calls)
				require.Len(t, h.DeadLetters(), test.dead)
				for _, d := range h.DeadLetters() {
					require.Contains(t, d.Cause, eventbus.ErrExpired.Error())
				}
			})
		})
	}
}

// Who reads dead letters gets those, too, that are dead because they were late,
// and what is published about them has not expired.
func TestExpiredDeadLettersCanBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error { return nil })
		h.Start(svc)
		var causes []string
		operations := eventbus.NewService("operations", h.Bus())
		operations.Handle("billing.dead-letter", func(m *message.Message) error {
			d, err := eventbus.ReadDeadLetter(m)
			require.NoError(t, err)
			causes = append(causes, d.Cause)
			alert, err := ordersPlaced.Message(m.Context(), h.Bus(), orderPlaced{})
			require.NoError(t, err)
			require.NotContains(t, alert.Metadata, eventbus.MetadataExpiryTime)
			return nil
		})
		h.Start(operations)
		require.NoError(t, ordersPlaced.Publish(t.Context(), h.Bus(), orderPlaced{OrderID: "1"}, eventbus.WithExpiry(time.Now().Add(-time.Second))))
		h.AwaitIdle()
		require.Len(t, causes, 1)
		require.Contains(t, causes[0], eventbus.ErrExpired.Error())
	})
}

// A chain of events without end, a heartbeat that schedules itself say, must not
// carry the first failure for ever.
func TestPreviousAttemptsAreThoseOfOneHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		beats := eventbus.NewTopic[int]("heartbeat")
		var previous []int
		svc := eventbus.NewService("clock", h.Bus())
		eventbus.Subscribe(svc, beats, func(ctx context.Context, e eventbus.Event[int]) error {
			previous = append(previous, resilience.PreviousAttempts(ctx))
			if len(previous) == 1 {
				return errors.New("a hiccup")
			}
			if e.Data == 3 {
				return nil
			}
			return beats.Publish(ctx, h.Bus(), e.Data+1)
		})
		h.Start(svc)
		require.NoError(t, beats.Publish(t.Context(), h.Bus(), 0))
		h.AwaitIdle()
		require.Equal(t, []int{0, 1, 1, 0, 0}, previous, "two tries, the event that the second published, and those after it")
	})
}

func TestExpiredDeadLetterThatIsSentBackIsHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		calls := 0
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error { calls++; return nil })
		h.Start(svc)
		require.NoError(t, ordersPlaced.Publish(t.Context(), h.Bus(), orderPlaced{OrderID: "1"}, eventbus.WithExpiry(time.Now())))
		h.AwaitIdle()
		require.Len(t, h.DeadLetters(), 1)
		require.NoError(t, h.DeadLetters()[0].Redrive(t.Context(), h.Bus()))
		h.AwaitIdle()
		require.Equal(t, 1, calls)
	})
}
