package resilience

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestValidateListsEveryProblemWithItsPath(t *testing.T) {
	cfg := Config{
		Budgets: map[string]BudgetSettings{"a": {Ratio: 2, Burst: -1}, "unlimited": {}, "many.retry.2": {}},
		Shared: map[string]PolicySettings{
			"database": {Bulkhead: &BulkheadSettings{Concurrency: -1}},
			"mine":     {Timeout: &TimeoutSettings{After: Duration(time.Second)}},
			"other":    {Policy: "database"},
		},
		Policies: map[string][]PolicySettings{
			"":      {{Retry: &RetrySettings{}}},
			"empty": {},
			"many": {
				{},
				{Retry: &RetrySettings{}, Timeout: &TimeoutSettings{}, Policy: "database"},
				{Timeout: &TimeoutSettings{}},
				{Retry: &RetrySettings{
					Attempts: -3, Budget: "b",
					Backoff: BackoffSettings{Shape: "linear", Base: Duration(time.Second), Max: Duration(time.Millisecond)},
				}},
				{CircuitBreaker: &CircuitBreakerSettings{WindowPeriod: Duration(time.Second), FailureRate: 1.5, WindowCalls: 10}},
				{CircuitBreaker: &CircuitBreakerSettings{SlowRate: 0.5}},
				{RateLimiter: &RateLimiterSettings{}},
				{AdaptiveLimiter: &AdaptiveLimiterSettings{Min: 10, Max: 5}},
				{Hedge: &HedgeSettings{Quantile: 0.1, Budget: "a"}},
				{Policy: "databse"},
				{Policy: "mine", Name: "x"},
				{Retry: &RetrySettings{}},
				{Name: "many.timeout", Bulkhead: &BulkheadSettings{}},
			},
		},
	}
	require.EqualError(t, cfg.Validate("mine"), `resilience: config: 28 problems:
	budgets.a.ratio: must be from 0.001 to 1, got 2
	budgets.a.burst: must be from 1 to 1e9, got -1
	budgets.unlimited: is not a name for a budget
	shared.database.bulkhead.concurrency: must be from 1 to 1e9, got -1
	shared.mine: is the name of a custom policy, too
	shared.other.policy: must not refer to another policy
	policies: a pipeline must have a name
	policies.empty: must have at least one policy
	policies.many[0]: must be of exactly one kind, with settings or {}; got none
	policies.many[1]: must be of exactly one kind, with settings or {}; got timeout and retry and policy
	policies.many[2].timeout.after: must be positive and at most a century, got 0s
	policies.many[3].retry.budget: there is no budget "b"; known are a, many.retry.2, unlimited, unlimited
	policies.many[3].retry.attempts: must be at least 1, got -3
	policies.many[3].retry.backoff.shape: must be exponential, fixed or decorrelated, got "linear"
	policies.many[3].retry.backoff.max: must be at least backoff.base (1s), got 1ms
	policies.many[4].circuit_breaker: only one of window_calls and window_period may be set
	policies.many[4].circuit_breaker.failure_rate: must be from 0 to 1, got 1.5
	policies.many[5].circuit_breaker: failure_rate, slow_call, slow_rate and min_calls need window_calls or window_period
	policies.many[5].circuit_breaker: slow_rate needs slow_call, the time from which on a call is slow
	policies.many[6].rate_limiter.calls: must be at least 1, got 0
	policies.many[7].adaptive_limiter.max: must be from min (10) to 1e6, got 5
	policies.many[7].adaptive_limiter.initial: must be from min to max, got 5
	policies.many[8].hedge.after: must be positive and at most a century, got 0s
	policies.many[8].hedge.quantile: must be from 0.5 to 0.999, got 0.1
	policies.many[9].policy: there is no policy "databse"; known are database, mine, other
	policies.many[10].name: must be that of the policy referred to
	budgets.many.retry.2: is the name of a policy, whose own budget has it
	policies.many[12]: the name "many.timeout" is that of policies.many[2], too`)
}

func TestAnEmptyConfigIsRefused(t *testing.T) {
	require.EqualError(t, Config{}.Validate(), "resilience: config: policies: must have at least one pipeline")
}

func TestPoliciesAreNamedAfterPipelineAndKind(t *testing.T) {
	cfg, err := ParseConfig([]byte(`{
		"shared": {"db": {"bulkhead": {}}},
		"policies": {"a": [
			{"timeout": {"after": "3s"}}, {"name": "middle", "timeout": {"after": "2s"}}, {"timeout": {"after": "1s"}},
			{"policy": "db"}, {"circuit_breaker": {}}
		]}
	}`))
	require.NoError(t, err)
	r, err := NewRegistry(cfg, RegistryConfig{})
	require.NoError(t, err)
	var names []string
	for _, d := range r.Describe()["a"] {
		names = append(names, d.Name)
	}
	require.Equal(t, []string{"a.timeout", "middle", "a.timeout.3", "db", "a.circuit_breaker"}, names)
}

// Whether another policy's own budget is known must not depend on the order.
func TestOwnBudgetsAreNobodyElses(t *testing.T) {
	for _, name := range []string{"a.retry", "b.retry"} {
		err := parsed(t, `{"policies": {"a": [{"retry": {}}], "b": [{"retry": {"budget": "`+name+`"}}]}}`).Validate()
		require.ErrorContains(t, err, `policies.b[0].retry.budget: there is no budget "`+name+`"; known are unlimited`)
	}
}

func TestANilPointerIsNoCustomPolicy(t *testing.T) {
	_, err := NewRegistry(parsed(t, `{"policies": {"a": [{"policy": "own"}]}}`), RegistryConfig{Custom: map[string]Policy{"own": (*CircuitBreaker)(nil)}})
	require.EqualError(t, err, "resilience: config: custom.own: must not be nil")
}
