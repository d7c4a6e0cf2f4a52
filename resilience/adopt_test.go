package resilience

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestAnOpenBreakerStaysOpenNoLongerThanTheNewSettingsSay(t *testing.T) {
	for _, c := range []struct {
		name, openFor string
		left          time.Duration
	}{
		{"shorter", "5s", 5 * time.Second},
		{"longer", "1m", 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := registryOf(t, `{"policies": {"a": [{"circuit_breaker": {"failures": 1, "open_for": "10s"}}]}}`)
				p := Must(r.Policy("a"))
				_ = p.Do(t.Context(), returning(errDown))
				reload(t, r, `{"policies": {"a": [{"circuit_breaker": {"window_calls": 20, "open_for": "`+c.openFor+`"}}]}}`)

				err := p.Do(t.Context(), returning(nil))
				require.ErrorIs(t, err, ErrOpen)
				after, _ := RetryAfter(err)
				require.Equal(t, c.left, after)
				time.Sleep(c.left)
				require.NoError(t, p.Do(t.Context(), returning(nil)))
				require.Equal(t, CircuitBreakerStats{State: Closed, Opened: 1, Rejected: 1}, r.Stats().CircuitBreakers["a.circuit_breaker"])
			})
		})
	}
}

func TestABreakerIsIsolatedUntilSomebodyClosesIt(t *testing.T) {
	r := registryOf(t, `{"policies": {"a": [{"circuit_breaker": {}}]}}`)
	b := Must(r.CircuitBreaker("a.circuit_breaker"))
	b.Isolate()
	reload(t, r, `{"policies": {"a": [{"circuit_breaker": {"failures": 7}}]}}`)
	require.Equal(t, Isolated, b.State())
	require.ErrorIs(t, Must(r.Policy("a")).Do(t.Context(), returning(nil)), ErrOpen)
	b.Close()
	require.NoError(t, Must(r.Policy("a")).Do(t.Context(), returning(nil)))
}

func TestAHalfOpenBreakerTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registryOf(t, `{"policies": {"a": [{"circuit_breaker": {"failures": 1}}]}}`)
		p, b := Must(r.Policy("a")), Must(r.CircuitBreaker("a.circuit_breaker"))
		_ = p.Do(t.Context(), returning(errDown))
		time.Sleep(10 * time.Second)
		probe := begin(t.Context(), p)
		reload(t, r, `{"policies": {"a": [{"circuit_breaker": {"failures": 1, "probes": 2}}]}}`)
		require.Equal(t, HalfOpen, b.State())
		require.NoError(t, p.Do(t.Context(), returning(nil)))
		require.NoError(t, probe.end(nil))
		require.Equal(t, HalfOpen, b.State(), "the probe of before is not counted")
		require.NoError(t, p.Do(t.Context(), returning(nil)))
		require.Equal(t, Closed, b.State())
	})
}

func TestABreakerKeepsTheCountsOfAWindowOfTheSameLength(t *testing.T) {
	for _, c := range []struct{ name, before, same, other string }{
		{"in a row", `"failures": 5`, `"failures": 4`, `"window_calls": 4`},
		{"calls", `"window_calls": 10, "min_calls": 5`, `"window_calls": 10, "min_calls": 4`, `"window_calls": 11, "min_calls": 4`},
		{"period", `"window_period": "10s", "min_calls": 5`, `"window_period": "10s", "min_calls": 4`, `"window_period": "20s", "min_calls": 4`},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for after, opens := range map[string]bool{c.same: true, c.other: false} {
					r := registryOf(t, `{"policies": {"a": [{"circuit_breaker": {`+c.before+`}}]}}`)
					p, b := Must(r.Policy("a")), Must(r.CircuitBreaker("a.circuit_breaker"))
					for range 3 {
						_ = p.Do(t.Context(), returning(errDown))
					}
					reload(t, r, `{"policies": {"a": [{"circuit_breaker": {`+after+`}}]}}`)
					require.Equal(t, Closed, b.State())
					_ = p.Do(t.Context(), returning(errDown))
					require.Equal(t, opens, b.State() == Open, after)
				}
			})
		})
	}
}

func TestSlowCallsAreKeptToo(t *testing.T) {
	w := newLastCalls(4, limits{slowRate: 1})
	w.bad(slow, 0)
	w.bad(failed|slow, 0)
	w.good(0)
	next := newLastCalls(4, limits{slowRate: 0.5})
	next.inherit(w)
	require.Equal(t, int64(2), next.slows.Load())
	require.Equal(t, int64(1), next.failures.Load())
	next.good(0)
	next.good(0) // overwrites the first
	require.Equal(t, int64(1), next.slows.Load())
}

func TestABudgetKeepsWhatIsSaved(t *testing.T) {
	r := registryOf(t, `{"budgets": {"x": {"burst": 10}}, "policies": {"a": [{"retry": {"budget": "x"}}]}}`)
	b := r.current.Load().budgets["x"]
	for range 4 {
		require.True(t, b.spend())
	}
	reload(t, r, `{"budgets": {"x": {"burst": 100}}, "policies": {"a": [{"retry": {"budget": "x", "attempts": 2}}]}}`)
	require.Equal(t, map[string]int{"x": 6}, r.Stats().Budgets)
	reload(t, r, `{"budgets": {"x": {"burst": 5, "ratio": 1}}, "policies": {"a": [{"retry": {"budget": "x"}}]}}`)
	require.Equal(t, 5, b.Left())
	require.Equal(t, "1 per call, at most 5 saved", b.String())
}

func TestARetryKeepsItsOwnBudgetAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registryOf(t, `{"policies": {"a": [{"retry": {}}]}}`)
		_ = Must(r.Policy("a")).Do(t.Context(), returning(errDown))
		reload(t, r, `{"policies": {"a": [{"retry": {"attempts": 2}}]}}`)
		require.Equal(t, map[string]int{"a.retry": 98}, r.Stats().Budgets)
		_ = Must(r.Policy("a")).Do(t.Context(), returning(errDown))
		require.Equal(t, 97, r.Stats().Budgets["a.retry"])
		require.Equal(t, RetryStats{Retries: 3, GaveUp: 2}, r.Stats().Retries["a.retry"])
	})
}

func TestARateLimiterKeepsWhatIsSaved(t *testing.T) {
	const second = int64(time.Second)
	for _, c := range []struct {
		name          string
		before, after RateLimiterConfig
		used          int           // calls just before
		left          int           // calls that may begin at once afterwards
		then          time.Duration // until the next one
	}{
		{"slower, all used", RateLimiterConfig{Calls: 10, Burst: 10}, RateLimiterConfig{Calls: 1, Burst: 10}, 10, 0, time.Second},
		{"slower, some used", RateLimiterConfig{Calls: 10, Burst: 10}, RateLimiterConfig{Calls: 1, Burst: 10}, 7, 3, time.Second},
		{"faster", RateLimiterConfig{Calls: 1, Burst: 10}, RateLimiterConfig{Calls: 10, Burst: 10}, 10, 0, time.Second / 10},
		{"larger burst", RateLimiterConfig{Calls: 10, Burst: 2}, RateLimiterConfig{Calls: 10, Burst: 100}, 1, 1, time.Second / 10},
		{"smaller burst", RateLimiterConfig{Calls: 10, Burst: 100}, RateLimiterConfig{Calls: 10, Burst: 2}, 50, 2, time.Second / 10},
		{"smaller burst, all used", RateLimiterConfig{Calls: 10, Burst: 100}, RateLimiterConfig{Calls: 10, Burst: 1}, 100, 0, time.Second / 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := Must(NewRateLimiter(c.before))
				for range c.used {
					require.Zero(t, l.reserve(now(), 0))
				}
				l.become(Must(NewRateLimiter(c.after)))
				for range c.left {
					require.Zero(t, l.reserve(now(), 0))
				}
				require.InDelta(t, c.then, l.reserve(now(), 0), 1000)
			})
		})
	}
	t.Run("calls that wait go first", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := Must(NewRateLimiter(RateLimiterConfig{Calls: 1}))
			require.Zero(t, l.reserve(now(), 0))
			require.Equal(t, second, l.reserve(now(), second))
			l.become(Must(NewRateLimiter(RateLimiterConfig{Calls: 10})))
			require.Equal(t, second+second/10, l.reserve(now(), 0))
		})
	})
}

func TestABulkheadCountsCallsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registryOf(t, `{"policies": {"a": [{"bulkhead": {"concurrency": 3, "queue": 2, "max_wait": "1h"}}]}}`)
		p := Must(r.Policy("a"))
		var calls []*underWay
		for range 5 {
			calls = append(calls, begin(t.Context(), p))
		}
		running := func() (n int) {
			for _, c := range calls {
				if c.running() {
					n++
				}
			}
			return n
		}
		require.Equal(t, 3, running())

		reload(t, r, `{"policies": {"a": [{"bulkhead": {"concurrency": 1, "queue": 1, "max_wait": "1h"}}]}}`)
		require.ErrorIs(t, p.Do(t.Context(), returning(nil)), ErrBulkheadFull)
		for i, want := range []int{3, 3, 4} { // the first two are in excess
			require.NoError(t, calls[i].end(nil))
			synctest.Wait()
			require.Equal(t, want, running())
		}
		require.Equal(t, BulkheadStats{Running: 1, Waiting: 1, Rejected: 1}, r.Stats().Bulkheads["a.bulkhead"])

		reload(t, r, `{"policies": {"a": [{"bulkhead": {"concurrency": 2}}]}}`)
		synctest.Wait()
		require.Equal(t, 5, running(), "who waits gets the new place")
		require.ErrorIs(t, p.Do(t.Context(), returning(nil)), ErrBulkheadFull)
		for _, c := range calls[3:] {
			require.NoError(t, c.end(nil))
		}
		require.NoError(t, p.Do(t.Context(), returning(nil)))
	})
}

// Whatever happens to a bulkhead, nobody waits while there is a place, and nobody
// enters while there is none.
func TestABulkheadHandsOutItsPlacesOverReloads(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.IntRange(-3, 6), 1, 60).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) {
			limit := 2
			b := Must(NewBulkhead(BulkheadConfig{Concurrency: limit, Queue: 5, MaxWait: time.Hour}))
			var calls []*underWay
			for _, step := range steps {
				before := b.Stats().Running
				switch {
				case step > 0:
					limit = step
					b.become(Must(NewBulkhead(BulkheadConfig{Concurrency: limit, Queue: 5, MaxWait: time.Hour})))
				case step == 0 && len(calls) > 0: // the oldest ends
					calls[0].finish <- nil
					calls = calls[1:]
				case step == -1 && len(calls) > 0: // the youngest gives up waiting, or goes on
					calls[len(calls)-1].cancel()
				default:
					calls = append(calls, begin(t.Context(), b))
				}
				synctest.Wait()
				s := b.Stats()
				if s.Running > max(before, limit) || s.Waiting > 0 && s.Running < limit {
					rt.Fatalf("%d running after %d, %d waiting, limit %d", s.Running, before, s.Waiting, limit)
				}
			}
			for _, c := range calls {
				c.finish <- nil
			}
			synctest.Wait()
			if s := b.Stats(); s.Running != 0 || s.Waiting != 0 {
				rt.Fatalf("left behind: %+v", s)
			}
		})
	})
}

func TestAnAdaptiveLimiterKeepsItsLimit(t *testing.T) {
	r := registryOf(t, `{"policies": {"a": [{"adaptive_limiter": {"initial": 50}}]}}`)
	limit := func() int { return r.Stats().AdaptiveLimiters["a.adaptive_limiter"].Limit }
	for _, c := range []struct {
		settings string
		want     int
	}{
		{`"initial": 20`, 50}, {`"max": 30`, 30}, {`"max": 100`, 30}, {`"min": 40`, 40},
	} {
		reload(t, r, `{"policies": {"a": [{"adaptive_limiter": {`+c.settings+`}}]}}`)
		require.Equal(t, c.want, limit())
	}
}

func TestAHedgeKeepsItsEstimate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registryOf(t, `{"policies": {"a": [{"hedge": {"after": "1s", "quantile": 0.9}}]}}`)
		after := func() time.Duration { return r.Stats().Hedges["a.hedge"].After }
		for range 100 {
			require.NoError(t, Must(r.Policy("a")).Do(t.Context(), returning(nil)))
		}
		learned := after()
		require.Less(t, learned, time.Second)
		reload(t, r, `{"policies": {"a": [{"hedge": {"after": "1s", "quantile": 0.9, "attempts": 3}}]}}`)
		require.Equal(t, learned, after())
		reload(t, r, `{"policies": {"a": [{"hedge": {"after": "2s", "quantile": 0.9}}]}}`)
		require.Equal(t, 2*time.Second, after())
	})
}

func TestAnotherKindOfTheSameNameBeginsAnew(t *testing.T) {
	r := registryOf(t, `{"policies": {"a": [{"name": "x", "bulkhead": {}}]}}`)
	for _, kind := range []string{`"circuit_breaker": {}`, `"rate_limiter": {"calls": 1}`, `"adaptive_limiter": {}`, `"retry": {}`, `"hedge": {"after": "1s"}`, `"timeout": {"after": "1s"}`, `"bulkhead": {}`} {
		reload(t, r, `{"policies": {"a": [{"name": "x", `+kind+`}]}}`)
		require.NoError(t, Must(r.Policy("a")).Do(context.Background(), returning(nil)))
	}
}

// Places that are taken while the settings change are taken.
func TestARateLimiterLosesNoCallsToReloads(t *testing.T) {
	const burst = 50_000
	settings := func(i int) *RateLimiter {
		return Must(NewRateLimiter(RateLimiterConfig{Calls: 1 + i%2, Per: time.Hour, Burst: burst}))
	}
	l := settings(0)
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for l.Do(t.Context(), returning(nil)) == nil {
				admitted.Add(1)
			}
		})
	}
	for i := range 1000 {
		l.become(settings(i))
	}
	wg.Wait()
	require.EqualValues(t, burst, admitted.Load())
}

// A call that leaves while a bulkhead grows does not take the new place away from
// who waits for one.
func TestNobodyWaitsBesideAFreePlaceAfterAReload(t *testing.T) {
	settings := func(places int) *Bulkhead {
		return Must(NewBulkhead(BulkheadConfig{Concurrency: places, Queue: 1}))
	}
	one, two := settings(1), settings(2)
	for range 20_000 {
		b := settings(2)
		b.state.Store(2) // calls under way
		w := b.enqueue()
		b.become(one)
		var wg sync.WaitGroup
		wg.Go(b.leave)
		wg.Go(func() { b.become(two) })
		wg.Wait()
		select {
		case <-w.turn:
		default:
			require.Fail(t, "waits", "%+v", b.Stats())
		}
	}
}

// The rest of a measurement would take for usual what calls take that wait.
func TestAReloadEndsAMeasurement(t *testing.T) {
	l := Must(NewAdaptiveLimiter(AdaptiveLimiterConfig{Initial: 100}))
	l.usual, l.held = 1000, patience
	l.update(5000, false, 100)
	require.Less(t, l.Stats().Limit, 50, "it measures")
	l.become(Must(NewAdaptiveLimiter(AdaptiveLimiterConfig{Max: 90})))
	require.Equal(t, 90, l.Stats().Limit)
	for range 2 {
		l.update(5000, false, 90)
	}
	require.Less(t, l.usual, 1001.)
}

func TestCallsUnderWayAreCountedOverReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registryOf(t, `{"policies": {"a": [{"retry": {}}, {"timeout": {"after": "1s"}}]}}`)
		p := Must(r.Policy("a"))
		underWay := make(chan error)
		go func() {
			underWay <- p.Do(t.Context(), func(ctx context.Context) error { return sleep(ctx, time.Minute) })
		}()
		synctest.Wait()
		reload(t, r, `{"policies": {"a": [{"retry": {"attempts": 2}}, {"timeout": {"after": "2s"}}]}}`)
		require.ErrorIs(t, <-underWay, ErrTimeout)
		require.Equal(t, TimeoutStats{TimedOut: 3}, r.Stats().Timeouts["a.timeout"])
		require.Equal(t, RetryStats{Retries: 2, GaveUp: 1}, r.Stats().Retries["a.retry"])
	})
}
