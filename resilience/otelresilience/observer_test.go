package otelresilience_test

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/otelresilience"
)

func TestObserverCountsEvents(t *testing.T) {
	cfg, reader := metered()
	cfg.Logger = slog.New(slog.DiscardHandler)
	observer, err := otelresilience.NewObserver(cfg)
	require.NoError(t, err)
	r := registryOf(t, `{"policies": {"a": [{"circuit_breaker": {"failures": 1}}]}}`, observer)
	p := resilience.Must(r.Policy("a"))
	require.ErrorIs(t, p.Do(t.Context(), returning(errDown)), errDown)
	for range 3 {
		require.ErrorIs(t, p.Do(t.Context(), returning(nil)), resilience.ErrOpen)
	}
	m := collect(t, reader)["millrace.resilience.events"]
	require.Equal(t, "{event}", m.Unit)
	require.True(t, m.Data.(metricdata.Sum[int64]).IsMonotonic)
	const breaker = ",millrace.resilience.policy.name=a.circuit_breaker,millrace.resilience.policy.type=circuit breaker"
	require.Equal(t, map[string]int64{
		"millrace.resilience.event.kind=rejected" + breaker:                                         3,
		"millrace.resilience.event.kind=state_change" + breaker + ",millrace.resilience.state=open": 1,
	}, sums(t, m))
}

func TestObserverLogsChangesOfState(t *testing.T) {
	var out bytes.Buffer
	cfg, _ := metered()
	cfg.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	observer, err := otelresilience.NewObserver(cfg)
	require.NoError(t, err)
	b := resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "payments", Observer: observer}))
	b.Isolate()
	_ = b.Do(t.Context(), returning(nil))
	b.Close()
	require.Equal(t, `level=WARN msg="circuit breaker changed its state" policy=payments from=closed to=isolated
level=INFO msg="circuit breaker changed its state" policy=payments from=isolated to=closed
`, out.String())
}

func TestLoggerIsTheDefaultOfTheMoment(t *testing.T) {
	cfg, _ := metered()
	observer, err := otelresilience.NewObserver(cfg)
	require.NoError(t, err)
	var out bytes.Buffer
	before := slog.Default()
	defer slog.SetDefault(before)
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	observer(resilience.Event{Kind: resilience.EventStateChange, Type: "circuit breaker"})
	require.Contains(t, out.String(), "changed its state")
}

func TestObserverAllocatesNothingOnceItKnowsTheSeries(t *testing.T) {
	cfg, _ := metered()
	observer, err := otelresilience.NewObserver(cfg)
	require.NoError(t, err)
	e := resilience.Event{Kind: resilience.EventRejected, Policy: "a", Type: "bulkhead"}
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { observer(e) }), 1.) // the SDK's
}
