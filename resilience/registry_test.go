package resilience

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// registryOf returns a registry of a Config in JSON.
func registryOf(t *testing.T, config string) *Registry {
	t.Helper()
	r, err := NewRegistry(parsed(t, config), RegistryConfig{})
	require.NoError(t, err)
	return r
}

func parsed(t *testing.T, config string) Config {
	t.Helper()
	cfg, err := ParseConfig([]byte(config))
	require.NoError(t, err)
	return cfg
}

func reload(t *testing.T, r *Registry, config string) {
	t.Helper()
	require.NoError(t, r.Reload(parsed(t, config)))
}

func TestNamesThatARegistryDoesNotKnow(t *testing.T) {
	r := registryOf(t, `{"policies": {"a": [{"retry": {}}], "b": [{"circuit_breaker": {}}]}}`)
	_, err := r.Policy("c")
	require.ErrorIs(t, err, ErrUnknownPolicy)
	require.EqualError(t, err, `resilience: registry: unknown policy "c"; known are a, b`)
	_, err = r.CircuitBreaker("b")
	require.ErrorIs(t, err, ErrUnknownPolicy)
	require.EqualError(t, err, `resilience: registry: unknown policy "b"; known circuit breakers are b.circuit_breaker`)
}

func TestReloadReachesThoseWhoHaveThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registryOf(t, `{"policies": {"a": [{"timeout": {"after": "1s"}}]}}`)
		p := Must(r.Policy("a"))
		late := func(ctx context.Context) error { return sleep(ctx, 2*time.Second) }
		require.ErrorIs(t, p.Do(t.Context(), late), ErrTimeout)

		underWay := make(chan error)
		go func() { underWay <- p.Do(t.Context(), late) }()
		synctest.Wait()
		reload(t, r, `{"policies": {"a": [{"timeout": {"after": "3s"}}]}}`)
		require.NoError(t, p.Do(t.Context(), late))
		require.ErrorIs(t, <-underWay, ErrTimeout, "a call under way finishes as it began")
		require.Same(t, p, Must(r.Policy("a")))
		require.Equal(t, "timeout a.timeout(3s)", p.String())
		require.Equal(t, int64(2), r.Stats().Timeouts["a.timeout"].TimedOut, "and is counted")
	})
}

func TestABadConfigChangesNothing(t *testing.T) {
	r := registryOf(t, `{"budgets": {"x": {"burst": 7}}, "policies": {"a": [{"retry": {"budget": "x"}}, {"bulkhead": {"concurrency": 3}}]}}`)
	before, stats := r.String(), r.Stats()
	err := r.Reload(parsed(t, `{
		"budgets": {"x": {"burst": 9}},
		"policies": {"a": [{"bulkhead": {"concurrency": 5}}, {"timeout": {}}], "b": [{"retry": {"attempts": -1}}]}
	}`))
	var problems *ConfigError
	require.ErrorAs(t, err, &problems)
	require.Len(t, problems.Problems, 2)
	require.Equal(t, before, r.String())
	require.Equal(t, stats, r.Stats())
}

func TestPoliciesWithTheSameSettingsAreNotTouched(t *testing.T) {
	const config = `{"policies": {"a": [{"timeout": {"after": "1s"}}, {"retry": {}}, {"circuit_breaker": {}}, {"hedge": {"after": "1s"}}]}}`
	r := registryOf(t, config)
	before := r.current.Load().made
	reload(t, r, config)
	for name, m := range r.current.Load().made {
		require.Same(t, before[name].policy, m.policy)
	}
	require.Len(t, before, 4)
}

func TestAPipelineThatIsGoneGoesOn(t *testing.T) {
	r := registryOf(t, `{"policies": {"a": [{"circuit_breaker": {"failures": 1}}], "b": [{"retry": {}}]}}`)
	p := Must(r.Policy("a"))
	breaker := Must(r.CircuitBreaker("a.circuit_breaker"))
	reload(t, r, `{"policies": {"b": [{"retry": {}}]}}`)
	_, err := r.Policy("a")
	require.ErrorIs(t, err, ErrUnknownPolicy)
	require.Empty(t, r.CircuitBreakers())
	require.ErrorIs(t, p.Do(t.Context(), returning(errDown)), errDown)
	require.ErrorIs(t, p.Do(t.Context(), returning(nil)), ErrOpen)

	reload(t, r, `{"policies": {"a": [{"circuit_breaker": {"failures": 2}}]}}`)
	require.Same(t, p, Must(r.Policy("a")))
	require.Same(t, breaker, Must(r.CircuitBreaker("a.circuit_breaker")))
	require.ErrorIs(t, p.Do(t.Context(), returning(nil)), ErrOpen, "it is still open")
}

func TestSharedAndCustomPolicies(t *testing.T) {
	var custom atomic.Int64
	counts := PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
		custom.Add(1)
		return fn(ctx)
	})
	cfg := parsed(t, `{
		"shared": {"db": {"circuit_breaker": {"failures": 1}}},
		"policies": {"a": [{"policy": "counts"}, {"policy": "db"}], "b": [{"policy": "db"}]}
	}`)
	require.ErrorContains(t, cfg.Validate(), `policies.a[0].policy: there is no policy "counts"; known are db`)
	require.NoError(t, cfg.Validate("counts"))
	_, err := NewRegistry(cfg, RegistryConfig{Custom: map[string]Policy{"counts": nil}})
	require.EqualError(t, err, "resilience: config: custom.counts: must not be nil")

	r := Must(NewRegistry(cfg, RegistryConfig{Custom: map[string]Policy{"counts": counts}}))
	require.ErrorIs(t, Must(r.Policy("a")).Do(t.Context(), returning(errDown)), errDown)
	require.ErrorIs(t, Must(r.Policy("b")).Do(t.Context(), returning(nil)), ErrOpen)
	require.Equal(t, int64(1), custom.Load())
	require.Len(t, r.CircuitBreakers(), 1)
}

func TestRegistryTellsItsObserver(t *testing.T) {
	var seen events
	cfg := parsed(t, `{"policies": {"a": [{"circuit_breaker": {"failures": 1}}]}}`)
	r := Must(NewRegistry(cfg, RegistryConfig{Observer: seen.observe}))
	_ = Must(r.Policy("a")).Do(t.Context(), returning(errDown))
	reload(t, r, `{"policies": {"a": [{"circuit_breaker": {"failures": 2}}]}}`)
	Must(r.CircuitBreaker("a.circuit_breaker")).Close()
	require.Equal(t, []EventKind{EventStateChange, EventStateChange}, seen.kinds(), "one opens, one closes, none reloads")
}

func TestNamedPolicyWithinAPipelineKeepsHedgedValuesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registryOf(t, `{"policies": {"a": [{"hedge": {"after": "1s"}}]}}`)
		inner := Must(NewTimeout(TimeoutConfig{After: time.Minute}))
		p := Must(NewPipeline("outer", Must(r.Policy("a")), inner))
		var calls atomic.Int64
		v, err := Get(t.Context(), p, func(ctx context.Context) (int, error) {
			n := int(calls.Add(1))
			if n == 1 {
				<-ctx.Done()
			}
			return n, ctx.Err()
		})
		require.NoError(t, err)
		require.Equal(t, 2, v)
	})
}

func TestNamedPolicyAllocatesNothing(t *testing.T) {
	r := registryOf(t, `{"policies": {"a": [{"retry": {}}, {"circuit_breaker": {"window_calls": 100}}, {"bulkhead": {}}]}}`)
	p, ctx := Must(r.Policy("a")), t.Context()
	fn := returning(nil)
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = p.Do(ctx, fn) }))
}

// Callers go on while the configuration changes all the time.
func TestReloadUnderLoad(t *testing.T) {
	configs := [...]string{
		`{"policies": {
			"open":  [{"circuit_breaker": {"failures": 1, "open_for": "1h"}}],
			"calls": [{"timeout": {"after": "1m"}}, {"retry": {}}, {"bulkhead": {"concurrency": 2, "queue": 100, "max_wait": "1m"}}, {"circuit_breaker": {"window_calls": 100}}]
		}}`,
		`{"policies": {
			"open":  [{"retry": {}}, {"circuit_breaker": {"window_period": "1s", "open_for": "2h"}}],
			"calls": [{"bulkhead": {"concurrency": 5, "queue": 200, "max_wait": "1m"}}, {"retry": {"attempts": 2}}, {"circuit_breaker": {"window_calls": 50}}]
		}}`,
	}
	r := registryOf(t, configs[0])
	open, calls := Must(r.Policy("open")), Must(r.Policy("calls"))
	require.ErrorIs(t, open.Do(t.Context(), returning(errDown)), errDown)

	var running, most, called, done atomic.Int64
	work := func(context.Context) error {
		now := running.Add(1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		called.Add(1)
		running.Add(-1)
		return nil
	}
	stop, wg := make(chan struct{}), sync.WaitGroup{}
	for range 20 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := calls.Do(t.Context(), work); err != nil {
					t.Errorf("a call was lost: %v", err)
				}
				done.Add(1)
				if err := open.Do(t.Context(), returning(nil)); !errors.Is(err, ErrOpen) {
					t.Errorf("the breaker let a call through: %v", err)
				}
			}
		})
	}
	for i := range 200 {
		reload(t, r, configs[(i+1)%2])
		for c := called.Load(); called.Load() == c; { // let some calls through
			runtime.Gosched()
		}
	}
	close(stop)
	wg.Wait()
	require.Equal(t, done.Load(), called.Load())
	require.LessOrEqual(t, most.Load(), int64(5))
	require.Zero(t, r.Stats().Bulkheads["calls.bulkhead"].Running)
}

func TestNamedPolicyWithinAHedge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registryOf(t, `{"policies": {"a": [{"timeout": {"after": "1m"}}]}}`)
		named := Must(r.Policy("a"))
		require.Equal(t, "a", named.Name())
		p := Must(NewPipeline("outer", Must(NewHedge(HedgeConfig{After: time.Second})), named, Must(NewHedge(HedgeConfig{After: time.Second}))))
		require.Contains(t, p.String(), "pipeline a(timeout a.timeout(1m0s))")
		var calls atomic.Int64
		v, err := Get(t.Context(), p, func(ctx context.Context) (int, error) {
			n := int(calls.Add(1))
			if n < 4 {
				<-ctx.Done()
			}
			return n, ctx.Err()
		})
		require.NoError(t, err)
		require.Equal(t, 4, v)
	})
}
