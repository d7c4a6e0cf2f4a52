package resilience

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A configuration is checked as a whole: all that is wrong with it is said.
func TestConfigurationsReportEveryProblem(t *testing.T) {
	second := func(_ any, err error) error { return err }
	nan := math.NaN()
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"retry": {second(NewRetry(RetryConfig{Name: "x", Attempts: -1, MaxElapsed: -1, MaxRetryAfter: -1,
			Backoff: Backoff{Shape: "linear", Base: -1, Max: -2, Factor: 0.5, Jitter: 2}})),
			`resilience: retry "x": Attempts must be at least 1, got -1
MaxElapsed must not be negative, got -1ns
MaxRetryAfter must not be negative, got -1ns
Backoff.Shape must be exponential, fixed or decorrelated, got "linear"
Backoff.Base must be positive, got -1ns
Backoff.Max must be at least Base (-1ns), got -2ns
Backoff.Factor must be at least 1, got 0.5
Backoff.Jitter must be at most 1, got 2`},
		"retry without numbers": {second(NewRetry(RetryConfig{Backoff: Backoff{Factor: nan, Jitter: nan}})),
			"resilience: retry: Backoff.Factor must be at least 1, got NaN\nBackoff.Jitter must be at most 1, got NaN"},
		"budget": {second(NewBudget(BudgetConfig{Ratio: 2, Burst: -1})),
			"resilience: budget: Ratio must be from 0.001 to 1, got 2\nBurst must be from 1 to 1e9, got -1"},
		"timeout": {second(NewTimeout(TimeoutConfig{})),
			"resilience: timeout: After must be positive and at most a century, got 0s"},
		"timeout for ever": {second(NewTimeout(TimeoutConfig{After: math.MaxInt64})),
			"resilience: timeout: After must be positive and at most a century, got 2562047h47m16.854775807s"},
		"breaker with two windows": {second(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1, WindowCalls: 2, WindowPeriod: time.Millisecond, SlowRate: 2, FailureRate: nan, OpenFor: -1, Probes: -1})),
			`resilience: circuit breaker: Failures counts calls in a row and needs no window; set one of Failures, WindowCalls and WindowPeriod
only one of WindowCalls and WindowPeriod may be set
SlowRate needs SlowCall, the time from which on a call is slow
WindowPeriod must be at least 10ms, got 1ms
FailureRate must be from 0 to 1, got NaN
SlowRate must be from 0 to 1, got 2
OpenFor must be positive and at most a century, got -1ns
Probes must be from 1 to 1e6, got -1`},
		"breaker without a window": {second(NewCircuitBreaker(CircuitBreakerConfig{Failures: -1, WindowCalls: -1, SlowCall: -1, MinCalls: -1})),
			`resilience: circuit breaker: FailureRate, SlowCall, SlowRate and MinCalls need WindowCalls or WindowPeriod
Failures must be from 1 to 1e9, got -1
WindowCalls must be from 1 to 1e6, got -1
SlowCall must not be negative, got -1ns
MinCalls must not be negative, got -1`},
		"bulkhead": {second(NewBulkhead(BulkheadConfig{Concurrency: -1, Queue: -1, MaxWait: -1})),
			`resilience: bulkhead: Concurrency must be from 1 to 1e9, got -1
Queue must be from 0 to 1e6, got -1
MaxWait must be positive and at most a century, got -1ns`},
		"rate limiter": {second(NewRateLimiter(RateLimiterConfig{Per: -1, Burst: -1, MaxWait: -1})),
			`resilience: rate limiter: Calls must be at least 1, got 0
Per must be positive and at most a century, got -1ns
Burst must be at least 1, got -1
MaxWait must not be negative, got -1ns`},
		"rate limiter that is too fast": {second(NewRateLimiter(RateLimiterConfig{Calls: 10, Per: 1})),
			"resilience: rate limiter: 10 calls in 1ns are more than one per nanosecond"},
		"rate limiter that is too slow": {second(NewRateLimiter(RateLimiterConfig{Calls: 1, Per: time.Hour, Burst: math.MaxInt64})),
			"resilience: rate limiter: Burst of 9223372036854775807 is longer than a century"},
		"adaptive limiter": {second(NewAdaptiveLimiter(AdaptiveLimiterConfig{Min: -1, Max: -2, Initial: 9, Tolerance: 0.5, Window: -1})),
			`resilience: adaptive limiter: Min must be at least 1, got -1
Max must be from Min (-1) to 1e6, got -2
Initial must be from Min to Max, got 9
Tolerance must be at least 1, got 0.5
Window must be positive and at most a century, got -1ns`},
		"hedge": {second(NewHedge(HedgeConfig{Quantile: 0.1, Attempts: 1})),
			`resilience: hedge: After must be positive and at most a century, got 0s
Quantile must be from 0.5 to 0.999, got 0.1
Attempts must be from 2 to 100, got 1`},
		"fallback": {second(NewFallback(FallbackConfig{})), "resilience: fallback: Do must not be nil"},
	} {
		t.Run(name, func(t *testing.T) { require.EqualError(t, test.err, test.want) })
	}
}

func TestMust(t *testing.T) {
	require.Equal(t, 1, Must(1, nil))
	require.PanicsWithValue(t, errDown, func() { Must(1, errDown) })
}

func TestBudgetLeft(t *testing.T) {
	require.Equal(t, math.MaxInt, Unlimited().Left())
	b := Must(NewBudget(BudgetConfig{Ratio: 0.57, Burst: 2}))
	require.Equal(t, 2, b.Left())
	require.Equal(t, "0.57 per call, at most 2 saved", b.String())
	b.refund()
	require.Equal(t, 2, b.Left(), "a refund saves no more than Burst")
}
