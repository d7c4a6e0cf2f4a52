package resilience

import (
	"strings"
	"time"
)

// settings is one kind of policy as data. Its values are comparable.
type settings interface {
	// build calls the constructor. path is where the settings are.
	build(b *builder, path, name string) (Policy, error)
}

// kind is one of the kinds that a PolicySettings has set.
type kind struct {
	name     string
	settings settings
}

func (s PolicySettings) kinds() []kind {
	var all []kind
	all = addKind(all, "timeout", s.Timeout)
	all = addKind(all, "retry", s.Retry)
	all = addKind(all, "circuit_breaker", s.CircuitBreaker)
	all = addKind(all, "bulkhead", s.Bulkhead)
	all = addKind(all, "rate_limiter", s.RateLimiter)
	all = addKind(all, "adaptive_limiter", s.AdaptiveLimiter)
	return addKind(all, "hedge", s.Hedge)
}

func addKind[S settings](all []kind, name string, s *S) []kind {
	if s == nil {
		return all
	}
	return append(all, kind{name, *s})
}

func kindNames(s PolicySettings, kinds []kind) string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	if s.Policy != "" {
		names = append(names, "policy")
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, " and ")
}

func (s TimeoutSettings) build(b *builder, _, name string) (Policy, error) {
	return NewTimeout(TimeoutConfig{Name: name, After: time.Duration(s.After), Observer: b.registry.cfg.Observer})
}

func (s RetrySettings) build(b *builder, path, name string) (Policy, error) {
	return NewRetry(RetryConfig{
		Name:       name,
		Attempts:   s.Attempts,
		MaxElapsed: time.Duration(s.MaxElapsed),
		Backoff: Backoff{
			Shape:  s.Backoff.Shape,
			Base:   time.Duration(s.Backoff.Base),
			Max:    time.Duration(s.Backoff.Max),
			Factor: s.Backoff.Factor,
			Jitter: s.Backoff.Jitter,
		},
		MaxRetryAfter: time.Duration(s.MaxRetryAfter),
		Budget:        b.budget(path, s.Budget, name, BudgetConfig{}),
		Nested:        s.Nested,
		Observer:      b.registry.cfg.Observer,
	})
}

func (s CircuitBreakerSettings) build(b *builder, _, name string) (Policy, error) {
	return NewCircuitBreaker(CircuitBreakerConfig{
		Name:         name,
		Failures:     s.Failures,
		WindowCalls:  s.WindowCalls,
		WindowPeriod: time.Duration(s.WindowPeriod),
		FailureRate:  s.FailureRate,
		SlowCall:     time.Duration(s.SlowCall),
		SlowRate:     s.SlowRate,
		MinCalls:     s.MinCalls,
		OpenFor:      time.Duration(s.OpenFor),
		Probes:       s.Probes,
		Observer:     b.registry.cfg.Observer,
	})
}

func (s BulkheadSettings) build(b *builder, _, name string) (Policy, error) {
	return NewBulkhead(BulkheadConfig{
		Name:        name,
		Concurrency: s.Concurrency,
		Queue:       s.Queue,
		MaxWait:     time.Duration(s.MaxWait),
		Observer:    b.registry.cfg.Observer,
	})
}

func (s RateLimiterSettings) build(b *builder, _, name string) (Policy, error) {
	return NewRateLimiter(RateLimiterConfig{
		Name:     name,
		Calls:    s.Calls,
		Per:      time.Duration(s.Per),
		Burst:    s.Burst,
		MaxWait:  time.Duration(s.MaxWait),
		Observer: b.registry.cfg.Observer,
	})
}

func (s AdaptiveLimiterSettings) build(b *builder, _, name string) (Policy, error) {
	return NewAdaptiveLimiter(AdaptiveLimiterConfig{
		Name:      name,
		Min:       s.Min,
		Max:       s.Max,
		Initial:   s.Initial,
		Tolerance: s.Tolerance,
		Window:    time.Duration(s.Window),
		Observer:  b.registry.cfg.Observer,
	})
}

func (s HedgeSettings) build(b *builder, path, name string) (Policy, error) {
	return NewHedge(HedgeConfig{
		Name:     name,
		After:    time.Duration(s.After),
		Quantile: s.Quantile,
		Attempts: s.Attempts,
		Budget:   b.budget(path, s.Budget, name, BudgetConfig{Ratio: hedgeRatio}),
		Observer: b.registry.cfg.Observer,
	})
}

// hedgeRatio is that of the budget of a hedge's own.
const hedgeRatio = 0.1
