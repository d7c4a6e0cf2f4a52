package resilience

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// recording is a policy of a user's own that writes down when it is called.
func recording(name string, log *[]string) Policy {
	return PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
		*log = append(*log, name)
		defer func() { *log = append(*log, "/"+name) }()
		return fn(ctx)
	})
}

func TestPipelineCallsTheFirstPolicyOutermost(t *testing.T) {
	var log []string
	inner := Must(NewPipeline("inner", recording("b", &log), recording("c", &log)))
	for name, p := range map[string]Policy{
		"flat":    Must(NewPipeline("", recording("a", &log), recording("b", &log), recording("c", &log), recording("d", &log))),
		"nested":  Must(NewPipeline("", recording("a", &log), inner, recording("d", &log))),
		"wrapped": Must(NewPipeline("", recording("a", &log), PolicyFunc(inner.Do), recording("d", &log))),
	} {
		log = nil
		value, err := Get(t.Context(), p, func(context.Context) (string, error) {
			log = append(log, "fn")
			return "value", errDown
		})
		require.Equal(t, errDown, err, name)
		require.Equal(t, "value", value, name)
		require.Equal(t, "a b c d fn /d /c /b /a", strings.Join(log, " "), name)
	}
}

func TestPipelineOfNothing(t *testing.T) {
	p := Must(NewPipeline("nothing"))
	require.Equal(t, errDown, p.Do(t.Context(), returning(errDown)))
	require.Equal(t, "nothing", p.Name())
	require.Empty(t, p.Describe())
	require.Empty(t, p.String())
}

func TestPipelineOfNil(t *testing.T) {
	_, err := NewPipeline("orders", nil, Must(NewBulkhead(BulkheadConfig{})), (*Pipeline)(nil), (*Retry)(nil), PolicyFunc(nil))
	require.EqualError(t, err, "resilience: pipeline \"orders\": policy 1 is nil\npolicy 3 is nil\npolicy 4 is nil\npolicy 5 is nil")
}

func TestPipelineDescribesItself(t *testing.T) {
	budget := Must(NewBudget(BudgetConfig{Ratio: 0.05, Burst: 10}))
	p := Must(NewPipeline("payments",
		Must(NewFallback(FallbackConfig{Name: "later", Do: ignore})),
		Must(NewTimeout(TimeoutConfig{Name: "all", After: 5 * time.Second})),
		Must(NewRetry(RetryConfig{Name: "again", MaxElapsed: time.Minute, Budget: budget})),
		Must(NewRetry(RetryConfig{Attempts: 9, Backoff: plain, Budget: Unlimited()})),
		Must(NewRetry(RetryConfig{Backoff: Backoff{Shape: Decorrelated}})),
		Must(NewCircuitBreaker(CircuitBreakerConfig{})),
		Must(NewCircuitBreaker(CircuitBreakerConfig{Name: "bank", WindowCalls: 10, FailureRate: 0.07})),
		Must(NewPipeline("inner",
			Must(NewCircuitBreaker(CircuitBreakerConfig{WindowPeriod: time.Minute, FailureRate: 0.5, SlowCall: time.Second, Probes: 3})),
			Must(NewRateLimiter(RateLimiterConfig{Calls: 100, Burst: 5, MaxWait: time.Second})),
		)),
		Must(NewBulkhead(BulkheadConfig{Queue: 4})),
		Must(NewAdaptiveLimiter(AdaptiveLimiterConfig{})),
		Must(NewHedge(HedgeConfig{After: time.Second, Quantile: 0.95})),
		recording("own", nil),
	))
	require.Equal(t, strings.Join([]string{
		"fallback later(a function)",
		"timeout all(5s)",
		"retry again(3 attempts, exponential 100ms to 10s, budget 0.05 per call, at most 10 saved, within 1m0s)",
		"retry(9 attempts, fixed 1s, budget unlimited)",
		"retry(3 attempts, decorrelated 100ms to 10s, budget 0.2 per call, at most 100 saved)",
		"circuit breaker(5 failures in a row, open for 10s, 1 probes)",
		"circuit breaker bank(7% failures of the last 10 calls, at least 10, open for 10s, 1 probes)",
		"circuit breaker(50% failures or 50% over 1s of the last 1m0s, at least 20 calls, open for 10s, 3 probes)",
		"rate limiter(100 per 1s, bursts of 5, waiting up to 1s)",
		"bulkhead(16 at a time, 4 waiting up to 1s)",
		"adaptive limiter(1 to 1000 at a time, tolerance 1.5)",
		"hedge(2 attempts, 1s apart, budget 0.1 per call, at most 100 saved, following the 0.95 quantile)",
		"custom(resilience.PolicyFunc)",
	}, " > "), p.String())
	all := p.Describe()
	require.Len(t, all, 13)
	require.Equal(t, Description{Kind: "timeout", Name: "all", Settings: "5s"}, all[1])
}

// A call enters a pipeline's policies at one time, which they share; what waits
// in between starts anew.
func TestPipelineSharesTheTimeOfEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limiter := Must(NewRateLimiter(RateLimiterConfig{Calls: 1, MaxWait: time.Minute}))
		p := Must(NewPipeline("", limiter, Must(NewTimeout(TimeoutConfig{After: time.Second}))))
		for range 3 {
			require.NoError(t, p.Do(t.Context(), func(ctx context.Context) error {
				deadline, _ := ctx.Deadline()
				require.Equal(t, time.Second, time.Until(deadline))
				return ctx.Err()
			}))
		}
		queue := Must(NewPipeline("", busy(t), Must(NewTimeout(TimeoutConfig{After: time.Second}))))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.ErrorIs(t, queue.Do(ctx, returning(nil)), context.DeadlineExceeded)
	})
}
