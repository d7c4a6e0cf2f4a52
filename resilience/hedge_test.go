package resilience

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// attempts is a function whose attempts, in order, take and return this; what
// takes forever ends with its context.
type attempts []struct {
	takes time.Duration
	err   error
}

const forever = time.Duration(-1)

func (a attempts) call(n *atomic.Int64) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		i := int(n.Add(1))
		if s := a[i-1]; s.takes != forever {
			time.Sleep(s.takes)
			return i, s.err
		}
		<-ctx.Done()
		return i, context.Cause(ctx)
	}
}

func TestHedge(t *testing.T) {
	for name, test := range map[string]struct {
		cfg     HedgeConfig
		fn      attempts
		value   int
		err     error
		elapsed time.Duration
		calls   int64
		won     int64
	}{
		"is quick":                           {fn: attempts{{time.Millisecond, nil}}, value: 1, elapsed: time.Millisecond, calls: 1},
		"fails quickly":                      {fn: attempts{{time.Millisecond, errDown}}, value: 1, err: errDown, elapsed: time.Millisecond, calls: 1},
		"is slow":                            {fn: attempts{{forever, nil}, {time.Second, nil}}, value: 2, elapsed: 2 * time.Second, calls: 2, won: 1},
		"is slow and wins":                   {fn: attempts{{3 * time.Second, nil}, {forever, nil}}, value: 1, elapsed: 3 * time.Second, calls: 2},
		"waits for who does not watch":       {fn: attempts{{9 * time.Second, nil}, {time.Second, nil}}, value: 2, elapsed: 9 * time.Second, calls: 2, won: 1},
		"waits for the other after an error": {fn: attempts{{5 * time.Second, nil}, {time.Second, errDown}}, value: 1, elapsed: 5 * time.Second, calls: 2},
		"returns the last error":             {fn: attempts{{5 * time.Second, errDown}, {time.Second, errWithoutTurn}}, value: 1, err: errDown, elapsed: 5 * time.Second, calls: 2},
		"believes a permanent error":         {fn: attempts{{forever, nil}, {time.Second, errPermanent}}, value: 2, err: errPermanent, elapsed: 2 * time.Second, calls: 2, won: 1},
		"has three attempts": {cfg: HedgeConfig{Attempts: 3}, fn: attempts{{forever, nil}, {forever, nil}, {time.Second, nil}},
			value: 3, elapsed: 3 * time.Second, calls: 3, won: 1},
		"has no budget": {cfg: HedgeConfig{Budget: emptyBudget()}, fn: attempts{{9 * time.Second, nil}}, value: 1, elapsed: 9 * time.Second, calls: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen events
				test.cfg.After, test.cfg.Observer = time.Second, seen.observe
				h := Must(NewHedge(test.cfg))
				var calls atomic.Int64
				begun := time.Now()
				value, err := Get(t.Context(), h, test.fn.call(&calls))
				require.Equal(t, test.err, err)
				require.Equal(t, test.value, value)
				require.Equal(t, test.elapsed, time.Since(begun))
				require.Equal(t, test.calls, calls.Load())
				require.Equal(t, HedgeStats{Hedged: test.calls - 1, Won: test.won, After: time.Second}, h.Stats())
				require.Len(t, seen.all, int(test.calls-1))
				for i, e := range seen.all {
					require.Equal(t, Event{Kind: EventHedged, Type: "hedge", Attempt: i + 2}, e)
				}
				requireNobodyElse(t)
			})
		})
	}
}

// requireNobodyElse checks that there is no other goroutine in the bubble.
func requireNobodyElse(t *testing.T) {
	t.Helper()
	require.NotContains(t, goroutines(), "hedgeAttempt")
}

func emptyBudget() *Budget {
	b := Must(NewBudget(BudgetConfig{Ratio: 0.001, Burst: 1}))
	b.spend()
	return b
}

func TestHedgeLoserLearnsWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := Must(NewHedge(HedgeConfig{After: time.Second}))
		breaker := Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1}))
		var calls atomic.Int64
		err := Must(NewPipeline("", h, breaker)).Do(t.Context(), func(ctx context.Context) error {
			if calls.Add(1) == 2 {
				return nil
			}
			<-ctx.Done()
			require.ErrorIs(t, context.Cause(ctx), ErrHedgeLost)
			return context.Cause(ctx)
		})
		require.NoError(t, err)
		require.Equal(t, Cancelled, Classify(ErrHedgeLost))
		require.Equal(t, Closed, breaker.State(), "who has lost has not failed")
	})
}

func TestHedgePanicsInItsCaller(t *testing.T) {
	for name, panics := range map[string]int64{"first attempt": 1, "second attempt": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := Must(NewHedge(HedgeConfig{After: time.Second}))
				var calls atomic.Int64
				ended := 0
				require.PanicsWithValue(t, "boom", func() {
					_ = h.Do(t.Context(), func(ctx context.Context) error {
						if calls.Add(1) == panics {
							time.Sleep(2 * time.Second)
							panic("boom")
						}
						<-ctx.Done()
						ended++
						return ctx.Err()
					})
				})
				require.Equal(t, 1, ended)
				requireNobodyElse(t)
			})
		})
	}
}

func TestHedgedAttemptThatExits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := Must(NewHedge(HedgeConfig{After: time.Second}))
		var calls atomic.Int64
		err := h.Do(t.Context(), func(ctx context.Context) error {
			if calls.Add(1) == 2 {
				runtime.Goexit()
			}
			<-ctx.Done()
			return ctx.Err()
		})
		require.ErrorIs(t, err, errAborted)
	})
}

// An Observer that exits or panics is one more thing that may go wrong in a
// hedged attempt.
func TestHedgeObserverThatDoesNotReturn(t *testing.T) {
	for name, observer := range map[string]Observer{
		"exits":  func(Event) { runtime.Goexit() },
		"panics": func(Event) { panic("boom") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := Must(NewHedge(HedgeConfig{After: time.Second, Observer: observer}))
				begun := time.Now()
				func() {
					defer func() { _ = recover() }()
					_ = h.Do(t.Context(), func(ctx context.Context) error {
						<-ctx.Done()
						return ctx.Err()
					})
				}()
				require.Equal(t, time.Second, time.Since(begun))
			})
		})
	}
}

// The timer may fire before it is known.
func TestHedgeAtOnce(t *testing.T) {
	h := Must(NewHedge(HedgeConfig{After: 1, Attempts: 10, Budget: Unlimited()}))
	for range 500 {
		value, err := Get(context.Background(), h, func(context.Context) (string, error) {
			runtime.Gosched()
			return strings.Repeat("a", 10), nil
		})
		require.NoError(t, err)
		require.Equal(t, "aaaaaaaaaa", value)
	}
}

func TestHedgeFindsItsQuantile(t *testing.T) {
	for _, q := range []float64{0.5, 0.9, 0.99} {
		synctest.Test(t, func(t *testing.T) {
			h := Must(NewHedge(HedgeConfig{After: 50 * time.Millisecond, Quantile: q, Budget: emptyBudget()}))
			random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
			sum, n := 0., 0.
			for i := range 15_000 {
				takes := time.Duration(random.Float64() * float64(100*time.Millisecond))
				_ = h.Do(t.Context(), func(context.Context) error {
					time.Sleep(takes)
					return nil
				})
				if i > 7_500 {
					sum, n = sum+h.Stats().After.Seconds()*10, n+1
				}
			}
			require.InDelta(t, q, sum/n, 0.03)
		})
	}
}

func TestHedgeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := Must(NewHedge(HedgeConfig{After: time.Second, Attempts: 3}))
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(1500*time.Millisecond, func() { cancel(errDown) })
		begun, calls := time.Now(), atomic.Int64{}
		err := h.Do(ctx, func(ctx context.Context) error {
			calls.Add(1)
			<-ctx.Done()
			return errors.Join(ctx.Err(), context.Cause(ctx))
		})
		require.ErrorIs(t, err, errDown)
		require.Equal(t, 1500*time.Millisecond, time.Since(begun))
		require.EqualValues(t, 2, calls.Load())
	})
}
