package watermillresilience_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/watermillresilience"
)

// A breaker that nacks while it is open had 1 message redelivered 136,882 times
// in half a second.
func TestOpenBreakerThatNacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker(resilience.CircuitBreakerConfig{})
		b.Isolate()
		var deliveries counter
		var handled atomic.Int32
		r := run(t, func(router *message.Router, pubsub *gochannel.GoChannel) {
			router.AddMiddleware(deliveries.middleware, watermillresilience.Middleware(b, watermillresilience.Config{}))
			router.AddConsumerHandler("billing", "orders", pubsub, func(*message.Message) error {
				handled.Add(1)
				return nil
			})
		})
		r.publish("orders", 1)
		time.Sleep(9 * time.Minute) // virtual
		calls, _ := deliveries.get()
		require.Zero(t, calls, "the message is still in its first delivery")
		require.Zero(t, handled.Load())
		b.Close()
		time.Sleep(time.Minute)
		calls, fails := deliveries.get()
		require.Equal(t, 1, calls)
		require.Zero(t, fails)
		require.EqualValues(t, 1, handled.Load())
		r.stop()
	})
}

// Around a breaker that returns its error, a poison queue made 200 dead letters
// of 200 messages after 6 calls of the handler.
func TestPoisonQueueOutsideABreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker(resilience.CircuitBreakerConfig{Failures: 6, OpenFor: 30 * time.Second})
		policy := pipeline(retry(3), b, timeout(time.Second))
		var dead, handled, down atomic.Int32
		down.Store(1)
		r := run(t, func(router *message.Router, pubsub *gochannel.GoChannel) {
			poison, err := middleware.PoisonQueue(pubsub, "dead")
			require.NoError(t, err)
			router.AddConsumerHandler("undertaker", "dead", pubsub, func(*message.Message) error {
				dead.Add(1)
				return nil
			})
			h := router.AddConsumerHandler("billing", "orders", pubsub, func(m *message.Message) error {
				if err := m.Context().Err(); err != nil {
					return err
				}
				if down.Load() == 1 {
					return errDown
				}
				handled.Add(1)
				return nil
			})
			h.AddMiddleware(poison, watermillresilience.Middleware(policy, watermillresilience.Config{}))
		})
		r.publish("orders", 200)
		time.Sleep(5 * time.Minute)
		require.Zero(t, dead.Load(), "messages that an open breaker turned away")
		require.Zero(t, handled.Load())
		down.Store(0)
		time.Sleep(2 * time.Minute)
		require.Zero(t, dead.Load())
		require.EqualValues(t, 200, handled.Load())
		r.stop()
	})
}

func TestPauseEndsWithTheMessagesContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker(resilience.CircuitBreakerConfig{})
		b.Isolate()
		var deliveries counter
		r := run(t, func(router *message.Router, pubsub *gochannel.GoChannel) {
			router.AddMiddleware(deliveries.middleware, watermillresilience.Middleware(b, watermillresilience.Config{}))
			router.AddConsumerHandler("billing", "orders", pubsub, func(*message.Message) error { return nil })
		})
		r.publish("orders", 10)
		time.Sleep(time.Minute)
		before := time.Now()
		r.stop()
		require.Zero(t, time.Since(before), "the router waits for nobody")
		calls, fails := deliveries.get()
		require.GreaterOrEqual(t, calls, 10, "the broker may deliver once more before it notices")
		require.Equal(t, calls, fails, "a message that was not handled is not acknowledged")
	})
}

func TestPauseEndsAfterMaxPause(t *testing.T) {
	for _, tt := range []struct {
		name       string
		configured time.Duration
		want       time.Duration
	}{
		{"by default", 0, 10 * time.Minute},
		{"configured", 3 * time.Second, 3 * time.Second},
		{"none", -1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breaker(resilience.CircuitBreakerConfig{Name: "payments"})
				b.Isolate()
				called := false
				h := watermillresilience.Middleware(b, watermillresilience.Config{MaxPause: tt.configured})(func(*message.Message) ([]*message.Message, error) {
					called = true
					return nil, nil
				})
				start := time.Now()
				_, err := h(message.NewMessage("1", nil))
				require.ErrorIs(t, err, resilience.ErrOpen)
				require.True(t, resilience.IsRejected(err), "a filter of a poison queue can tell it")
				require.Equal(t, tt.want, time.Since(start))
				require.False(t, called)
			})
		})
	}
}

// A message that met an outage keeps waiting, however its attempts were spread
// over calls and refusals.
func TestRefusedRetryIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker(resilience.CircuitBreakerConfig{Failures: 1, OpenFor: time.Minute})
		start, calls := time.Now(), 0
		h := watermillresilience.Middleware(pipeline(retry(3), b), watermillresilience.Config{})(func(*message.Message) ([]*message.Message, error) {
			if calls++; time.Since(start) < 5*time.Minute {
				return nil, errDown
			}
			return nil, nil
		})
		_, err := h(message.NewMessage("1", nil))
		require.NoError(t, err)
		require.Less(t, calls, 7, "one probe a minute")
	})
}

func TestFailuresOfTheHandlerAreReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		h := watermillresilience.Middleware(retry(3), watermillresilience.Config{})(func(*message.Message) ([]*message.Message, error) {
			calls++
			return nil, errDown
		})
		_, err := h(message.NewMessage("1", nil))
		require.ErrorIs(t, err, errDown)
		require.ErrorIs(t, err, resilience.ErrRetriesExhausted)
		require.Equal(t, 3, calls)
	})
}

// Watermill issue 467: a timeout that leaves its context in the message leaves a
// dead one to the retry outside of it.
func TestEachAttemptHasALiveContext(t *testing.T) {
	type key struct{}
	synctest.Test(t, func(t *testing.T) {
		var previous []int
		h := watermillresilience.Middleware(pipeline(retry(3), timeout(time.Second)), watermillresilience.Config{})(func(m *message.Message) ([]*message.Message, error) {
			require.NoError(t, m.Context().Err())
			require.Equal(t, "value", m.Context().Value(key{}))
			deadline, ok := m.Context().Deadline()
			require.True(t, ok)
			require.Equal(t, time.Second, time.Until(deadline))
			previous = append(previous, resilience.PreviousAttempts(m.Context()))
			m.SetContext(context.WithValue(m.Context(), key{}, "scribble"))
			<-m.Context().Done()
			return nil, context.Cause(m.Context())
		})
		original := context.WithValue(t.Context(), key{}, "value")
		m := message.NewMessageWithContext(original, "1", nil)
		_, err := h(m)
		require.ErrorIs(t, err, resilience.ErrTimeout)
		require.Equal(t, []int{0, 1, 2}, previous)
		require.Equal(t, original, m.Context())
	})
}

func TestContextIsRestoredAfterAPanic(t *testing.T) {
	h := watermillresilience.Middleware(timeout(time.Second), watermillresilience.Config{})(func(*message.Message) ([]*message.Message, error) {
		panic("handler")
	})
	m := message.NewMessageWithContext(t.Context(), "1", nil)
	require.PanicsWithValue(t, "handler", func() { _, _ = h(m) })
	require.Equal(t, t.Context(), m.Context())
}

// Handlers pass their context on to the messages they make; the Router publishes
// those after the attempt has ended.
func TestProducedMessagesOutliveTheAttempt(t *testing.T) {
	type key struct{}
	type other struct{}
	h := watermillresilience.Middleware(timeout(time.Hour), watermillresilience.Config{})(func(m *message.Message) ([]*message.Message, error) {
		ctx := context.WithValue(m.Context(), key{}, "span")
		return []*message.Message{m, nil, message.NewMessage("2", nil), message.NewMessageWithContext(ctx, "3", nil)}, nil
	})
	ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), other{}, "value"))
	defer cancel(nil)
	produced, err := h(message.NewMessageWithContext(ctx, "1", nil))
	require.NoError(t, err)
	require.Equal(t, ctx, produced[0].Context())
	require.Equal(t, context.Background(), produced[2].Context())
	made := produced[3].Context()
	require.NoError(t, made.Err())
	require.Equal(t, "span", made.Value(key{}))
	require.Equal(t, "value", made.Value(other{}))
	_, limited := made.Deadline()
	require.False(t, limited)
	cause := errors.New("shutting down")
	cancel(cause)
	require.ErrorIs(t, made.Err(), context.Canceled)
	require.Equal(t, cause, context.Cause(made))
}

func TestMiddlewareRefusesWhatCantWork(t *testing.T) {
	hedge := resilience.Must(resilience.NewHedge(resilience.HedgeConfig{After: time.Second}))
	for name, p := range map[string]resilience.Policy{"nil": nil, "hedge": hedge, "pipeline with a hedge": pipeline(retry(3), hedge)} {
		t.Run(name, func(t *testing.T) {
			require.Panics(t, func() { watermillresilience.Middleware(p, watermillresilience.Config{}) })
			_, err := watermillresilience.PublisherDecorator(p, watermillresilience.PublisherConfig{})(nil)
			require.Error(t, err)
		})
	}
}

func TestMiddlewareAllocatesNothingOfItsOwn(t *testing.T) {
	policy := pipeline(retry(3), breaker(resilience.CircuitBreakerConfig{}), timeout(time.Second))
	m := message.NewMessageWithContext(t.Context(), "1", nil)
	handler := func(*message.Message) ([]*message.Message, error) { return nil, nil }
	direct := testing.AllocsPerRun(1000, func() {
		original := m.Context()
		_, _ = resilience.Get(original, policy, func(ctx context.Context) ([]*message.Message, error) {
			m.SetContext(ctx)
			defer m.SetContext(original)
			return handler(m)
		})
	})
	h := watermillresilience.Middleware(policy, watermillresilience.Config{})(handler)
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() { _, _ = h(m) }), direct)
}
