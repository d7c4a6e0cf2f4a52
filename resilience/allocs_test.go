package resilience

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A call that goes well allocates nothing but what it hands on.
func TestAllocations(t *testing.T) {
	retry := Must(NewRetry(RetryConfig{MaxElapsed: time.Minute}))
	breaker := Must(NewCircuitBreaker(CircuitBreakerConfig{}))
	timeout := Must(NewTimeout(TimeoutConfig{After: time.Minute}))
	fn := returning(nil)
	get := func(context.Context) (int, error) { return 1, nil }
	first := Must(NewRetry(RetryConfig{}))
	require.Zero(t, testing.AllocsPerRun(1000, func() { _, _ = Get(context.Background(), first, get) }), "Get through a Retry")
	for name, test := range map[string]struct {
		policy Policy
		allocs float64
	}{
		"retry":                 {retry, 0},
		"breaker":               {breaker, 0},
		"breaker of calls":      {Must(NewCircuitBreaker(CircuitBreakerConfig{WindowCalls: 100})), 0},
		"breaker of a period":   {Must(NewCircuitBreaker(CircuitBreakerConfig{WindowPeriod: time.Second, SlowCall: time.Minute})), 0},
		"bulkhead":              {Must(NewBulkhead(BulkheadConfig{})), 0},
		"limiter":               {Must(NewRateLimiter(RateLimiterConfig{Calls: 1e9, Burst: 1e6})), 0},
		"adaptive limiter":      {Must(NewAdaptiveLimiter(AdaptiveLimiterConfig{})), 0},
		"fallback":              {Must(NewFallback(FallbackConfig{Do: ignore})), 0},
		"timeout":               {timeout, 1},
		"retry, breaker":        {Must(NewPipeline("", retry, breaker)), 0},
		"retry, breaker, timer": {Must(NewPipeline("", retry, breaker, timeout)), 1},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			require.Equal(t, test.allocs, testing.AllocsPerRun(1000, func() {
				_ = test.policy.Do(ctx, fn)
			}))
			require.Equal(t, test.allocs+1, testing.AllocsPerRun(1000, func() {
				_, _ = Get(ctx, test.policy, get)
			}), "Get")
		})
	}
}
