package resilience

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// gobreaker calls OnStateChange with its mutex held: whoever asks for the state
// there waits for ever.
func TestCallbackUnderALockDeadlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b *CircuitBreaker
		var seen events
		uses := func(e Event) {
			seen.observe(e)
			if e.Kind != EventStateChange {
				return
			}
			_ = b.Stats()
			require.Equal(t, e.To, b.State())
			_ = b.Do(context.Background(), returning(nil))
			switch e.To {
			case Open:
				b.Isolate()
			case Isolated:
				b.Close()
			}
		}
		b = Must(NewCircuitBreaker(CircuitBreakerConfig{Name: "payments", Failures: 1, Observer: uses}))
		require.ErrorIs(t, b.Do(t.Context(), returning(errDown)), errDown)
		require.Equal(t, []EventKind{EventStateChange, EventRejected, EventStateChange, EventRejected, EventStateChange}, seen.kinds())
		require.Equal(t, Closed, b.State())
	})
}

// Observers of the other policies may use them too.
func TestObserversMayUseTheirPolicy(t *testing.T) {
	for name, build := range map[string]func(o Observer) Policy{
		"bulkhead":     func(o Observer) Policy { return Must(NewBulkhead(BulkheadConfig{Concurrency: 1, Observer: o})) },
		"rate limiter": func(o Observer) Policy { return Must(NewRateLimiter(RateLimiterConfig{Calls: 1, Observer: o})) },
		"adaptive limiter": func(o Observer) Policy {
			return Must(NewAdaptiveLimiter(AdaptiveLimiterConfig{Max: 1, Observer: o}))
		},
		"retry":    func(o Observer) Policy { return Must(NewRetry(RetryConfig{Observer: o})) },
		"timeout":  func(o Observer) Policy { return Must(NewTimeout(TimeoutConfig{After: time.Second, Observer: o})) },
		"hedge":    func(o Observer) Policy { return Must(NewHedge(HedgeConfig{After: time.Second, Observer: o})) },
		"fallback": func(o Observer) Policy { return Must(NewFallback(FallbackConfig{Do: ignore, Observer: o})) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p Policy
				depth, seen := 0, 0
				p = build(func(Event) {
					seen++
					if depth++; depth == 1 {
						_ = p.Do(context.Background(), returning(nil))
					}
				})
				_ = p.Do(t.Context(), func(ctx context.Context) error {
					time.Sleep(2 * time.Second)
					return errors.Join(errDown, p.Do(ctx, returning(nil)))
				})
				_ = p.Do(t.Context(), func(ctx context.Context) error { return p.Do(ctx, returning(nil)) })
				require.Positive(t, seen)
			})
		})
	}
}

func ignore(context.Context, error) error { return nil }

func TestCircuitBreakerStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen events
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{Name: "payments", Failures: 2, Probes: 2, Observer: seen.observe}))
		_ = b.Do(t.Context(), returning(errDown))
		require.NoError(t, b.Do(t.Context(), returning(nil)))
		_ = b.Do(t.Context(), returning(errDown))
		require.Equal(t, Closed, b.State())
		_ = b.Do(t.Context(), returning(errDown))
		require.Equal(t, Open, b.State())

		time.Sleep(4 * time.Second)
		err := b.Do(t.Context(), returning(nil))
		require.ErrorIs(t, err, ErrOpen)
		require.EqualError(t, err, `resilience: circuit breaker "payments" is open, try again in 6s`)
		require.Equal(t, Throttled, Classify(err))
		require.True(t, IsRejected(err))
		time.Sleep(6 * time.Second)
		after, asked := RetryAfter(err)
		require.True(t, asked)
		require.Zero(t, after, "the time of the error goes on")

		first, second := begin(t.Context(), b), begin(t.Context(), b)
		err = b.Do(t.Context(), returning(nil))
		require.EqualError(t, err, `resilience: circuit breaker "payments" is half-open, try again in 1s`)
		require.NoError(t, first.end(nil))
		require.Equal(t, HalfOpen, b.State())
		require.NoError(t, second.end(nil))
		require.Equal(t, Closed, b.State())

		b.Isolate()
		time.Sleep(time.Hour)
		require.EqualError(t, b.Do(t.Context(), returning(nil)), `resilience: circuit breaker "payments" is isolated, try again in 1s`)
		b.Close()
		require.NoError(t, b.Do(t.Context(), returning(nil)))
		require.Equal(t, CircuitBreakerStats{State: Closed, Opened: 1, Rejected: 3}, b.Stats())

		var states []string
		for _, e := range seen.all {
			if e.Kind == EventStateChange {
				states = append(states, fmt.Sprint(e.From, " to ", e.To))
			}
		}
		require.Equal(t, []string{"closed to open", "open to half-open", "half-open to closed", "closed to isolated", "isolated to closed"}, states)
	})
}

// Calls that time out take longer than a short window; they count all the same.
func TestCircuitBreakerCountsCallsThatOutlastItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{WindowPeriod: time.Second, MinCalls: 10}))
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_ = b.Do(context.Background(), func(context.Context) error {
					time.Sleep(30 * time.Second)
					return errDown
				})
			})
			time.Sleep(50 * time.Millisecond)
		}
		wg.Wait()
		require.Equal(t, Open, b.State())
	})
}

// A bubble of synctest has its clock in the year 2000, long before this process
// began; limits made before it, or in it, work.
func TestTheClockOfABubble(t *testing.T) {
	require.Positive(t, now())
	outside := Must(NewRateLimiter(RateLimiterConfig{Calls: 1}))
	synctest.Test(t, func(t *testing.T) {
		require.Positive(t, now())
		begun := now()
		time.Sleep(time.Second)
		require.EqualValues(t, time.Second, now()-begun)
		require.NoError(t, outside.Do(t.Context(), returning(nil)))
		require.ErrorIs(t, outside.Do(t.Context(), returning(nil)), ErrRateLimited)
	})
}

// Under contention the breaker opens, and never lets more than Probes through.
func TestCircuitBreakerUnderContention(t *testing.T) {
	for name, cfg := range map[string]CircuitBreakerConfig{
		"row":    {Failures: 5},
		"calls":  {WindowCalls: 50},
		"period": {WindowPeriod: time.Second},
		"slow":   {WindowPeriod: time.Second, SlowCall: time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg.OpenFor, cfg.Probes = time.Second, 3
				b := Must(NewCircuitBreaker(cfg))
				var down atomic.Bool
				down.Store(true)
				hammer := func(calls int) (passed int64) {
					var wg sync.WaitGroup
					var n, probing atomic.Int64
					for range 50 {
						wg.Go(func() {
							for range calls {
								_ = b.Do(context.Background(), func(context.Context) error {
									if b.State() == HalfOpen && probing.Add(1) > 3 {
										t.Error("too many probes")
									}
									n.Add(1)
									runtime.Gosched()
									time.Sleep(2 * time.Millisecond)
									if down.Load() {
										return errDown
									}
									return nil
								})
							}
						})
					}
					wg.Wait()
					return n.Load()
				}
				require.Less(t, hammer(100), int64(200), "it opens")
				require.Equal(t, Open, b.State())
				for range 20 {
					time.Sleep(time.Second)
					require.LessOrEqual(t, hammer(1), int64(3), "only probes pass")
					require.Equal(t, Open, b.State())
				}
				down.Store(false)
				time.Sleep(time.Second)
				require.EqualValues(t, 3, hammer(1))
				if cfg.SlowCall == 0 {
					require.Equal(t, Closed, b.State())
				}
			})
		})
	}
}

// The counters of a window agree with the calls when many count at a time.
func TestWindowsUnderContention(t *testing.T) {
	l := limits{minCalls: 1 << 30, failureRate: 1}
	calls, period := newLastCalls(100, l), newLastPeriod(10*time.Hour, l)
	at := now()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 5000 {
				for _, w := range []window{calls, period} {
					if i%3 == 0 {
						w.good(at)
					} else {
						w.bad(outcome(i%3)|slow, at)
					}
				}
			}
		})
	}
	wg.Wait()
	var failures, slows int64
	for i := range calls.ring {
		o := outcome(calls.ring[i].Load())
		failures += int64(o & failed)
		slows += int64(o & slow / slow)
	}
	require.Equal(t, failures, calls.failures.Load())
	require.Equal(t, slows, calls.slows.Load())
	step := at / period.width
	total, marked := period.buckets[step%buckets].calls.get(step)
	require.Equal(t, 40_000, total)
	require.InDelta(t, 40_000/3, marked, 10)
}

func TestCounterStopsAtItsLimit(t *testing.T) {
	var c counter
	c.word.Store(7<<(2*countBits) | (countMost-1)<<countBits | 5)
	c.add(7, 1)
	c.add(7, 1)
	calls, marked := c.get(7)
	require.Equal(t, countMost, calls)
	require.Equal(t, 6, marked)
	calls, _ = c.get(8)
	require.Zero(t, calls)
	c.add(8, 0)
	calls, marked = c.get(8)
	require.Equal(t, []int{1, 0}, []int{calls, marked})
}

func TestStateString(t *testing.T) {
	require.Equal(t, "closed open half-open isolated state 9", fmt.Sprint(Closed, " ", Open, " ", HalfOpen, " ", Isolated, " ", State(9)))
}

// Who asks for slow calls to be counted has not said that failures are fine.
func TestSlowCallsAreCountedBesideFailures(t *testing.T) {
	for _, c := range []struct {
		cfg  CircuitBreakerConfig
		want State
	}{
		{CircuitBreakerConfig{WindowCalls: 10, SlowCall: time.Minute}, Open},
		{CircuitBreakerConfig{WindowCalls: 10, SlowCall: time.Minute, FailureRate: 1, SlowRate: 0.5}, Open},
		{CircuitBreakerConfig{WindowCalls: 10, SlowCall: time.Minute, SlowRate: 0.5}, Closed},
	} {
		b := Must(NewCircuitBreaker(c.cfg))
		for range 10 {
			_ = b.Do(t.Context(), returning(errDown))
		}
		require.Equal(t, c.want, b.State(), b.describe())
	}
}

// Probes that are cancelled give their places back, one that panics reopens.
func TestProbesThatDoNotReturnAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1, Probes: 2, OpenFor: time.Second}))
		_ = b.Do(t.Context(), returning(errDown))
		time.Sleep(time.Second)
		for range 10 {
			require.Equal(t, context.Canceled, b.Do(t.Context(), returning(context.Canceled)))
			require.Equal(t, HalfOpen, b.State())
		}
		require.NoError(t, b.Do(t.Context(), returning(nil)))
		require.Panics(t, func() { _ = b.Do(t.Context(), func(context.Context) error { panic("no answer") }) })
		require.Equal(t, Open, b.State())
		time.Sleep(time.Second)
		require.NoError(t, b.Do(t.Context(), returning(nil)))
		require.NoError(t, b.Do(t.Context(), returning(nil)))
		require.Equal(t, Closed, b.State())
	})
}
