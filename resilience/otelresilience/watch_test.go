package otelresilience_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/otelresilience"
)

func TestWatchReadsTheStateOfPolicies(t *testing.T) {
	cfg, reader := metered()
	r := registryOf(t, `{
		"budgets": {"shared": {"burst": 7}},
		"policies": {"a": [
			{"retry": {"budget": "shared"}}, {"circuit_breaker": {}}, {"bulkhead": {"concurrency": 3}},
			{"adaptive_limiter": {"initial": 5}}, {"hedge": {"after": "250ms", "budget": "shared"}}
		]}
	}`, nil)
	registration, err := otelresilience.Watch(r, cfg)
	require.NoError(t, err)

	p := resilience.Must(r.Policy("a"))
	var during map[string]metricdata.Metrics
	require.NoError(t, p.Do(t.Context(), func(context.Context) error {
		during = collect(t, reader)
		return nil
	}))
	const (
		state = ",millrace.resilience.state="
		name  = "millrace.resilience.policy.name="
	)
	for metric, want := range map[string]struct {
		unit   string
		values map[string]int64
	}{
		"circuit_breaker.state": {"{circuit_breaker}", map[string]int64{
			name + "a.circuit_breaker" + state + "closed": 1, name + "a.circuit_breaker" + state + "open": 0,
			name + "a.circuit_breaker" + state + "half-open": 0, name + "a.circuit_breaker" + state + "isolated": 0,
		}},
		"bulkhead.calls": {"{call}", map[string]int64{
			name + "a.bulkhead" + state + "running": 1, name + "a.bulkhead" + state + "waiting": 0,
		}},
		"adaptive_limiter.calls": {"{call}", map[string]int64{name + "a.adaptive_limiter": 1}},
		"adaptive_limiter.limit": {"{call}", map[string]int64{name + "a.adaptive_limiter": 5}},
		"budget.left":            {"{retry}", map[string]int64{"millrace.resilience.budget.name=shared": 7}},
	} {
		m := during["millrace.resilience."+metric]
		require.Equal(t, want.unit, m.Unit, metric)
		require.NotEmpty(t, m.Description)
		require.False(t, m.Data.(metricdata.Sum[int64]).IsMonotonic)
		require.Equal(t, want.values, sums(t, m), metric)
	}
	delay := during["millrace.resilience.hedge.delay"]
	require.Equal(t, "s", delay.Unit)
	require.Equal(t, 0.25, delay.Data.(metricdata.Gauge[float64]).DataPoints[0].Value)

	resilience.Must(r.CircuitBreaker("a.circuit_breaker")).Isolate()
	after := sums(t, collect(t, reader)["millrace.resilience.circuit_breaker.state"])
	require.Equal(t, int64(0), after[name+"a.circuit_breaker"+state+"closed"])
	require.Equal(t, int64(1), after[name+"a.circuit_breaker"+state+"isolated"])

	require.NoError(t, registration.Unregister())
	require.Empty(t, collect(t, reader))
}
