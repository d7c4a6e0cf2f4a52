package otelresilience_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/otelresilience"
)

func TestInstrumentTellsOutcomesApart(t *testing.T) {
	cfg, reader := metered()
	p, err := otelresilience.Instrument("payments", resilience.Must(resilience.NewPipeline("p")), cfg)
	require.NoError(t, err)
	for _, fnErr := range []error{
		nil, nil,
		errDown,
		resilience.AsThrottled(errDown, time.Second),
		resilience.AsPermanent(errDown),
		context.Canceled,
		&resilience.RejectedError{Reason: resilience.ErrBulkheadFull},
	} {
		require.Equal(t, fnErr, p.Do(t.Context(), returning(fnErr)))
	}
	require.Panics(t, func() { _ = p.Do(t.Context(), func(context.Context) error { panic("oh") }) })

	counts := map[string]uint64{}
	for _, point := range histogram(t, collect(t, reader)) {
		name, _ := point.Attributes.Value("millrace.resilience.policy.name")
		require.Equal(t, "payments", name.AsString())
		outcome, _ := point.Attributes.Value("millrace.resilience.outcome")
		counts[outcome.AsString()] = point.Count
	}
	require.Equal(t, map[string]uint64{
		"success": 2, "transient": 1, "throttled": 1, "permanent": 1, "cancelled": 1, "rejected": 1, "panicked": 1,
	}, counts)
}

func TestInstrumentMeasuresTheWholeCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, reader := metered()
		retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{
			Attempts: 2, Backoff: resilience.Backoff{Shape: resilience.Fixed, Base: time.Second, Jitter: -1},
		}))
		p := resilience.Must(otelresilience.Instrument("a", retry, cfg))
		_ = p.Do(t.Context(), func(context.Context) error {
			time.Sleep(2 * time.Second)
			return errDown
		})
		points := histogram(t, collect(t, reader))
		require.Len(t, points, 1)
		require.Equal(t, 5., points[0].Sum)
	})
}

func histogram(t *testing.T, all map[string]metricdata.Metrics) []metricdata.HistogramDataPoint[float64] {
	t.Helper()
	m := all["millrace.resilience.call.duration"]
	require.Equal(t, "s", m.Unit)
	return m.Data.(metricdata.Histogram[float64]).DataPoints
}

func TestInstrumentAllocatesNothingItself(t *testing.T) {
	p := resilience.Must(otelresilience.Instrument("a", resilience.Must(resilience.NewRetry(resilience.RetryConfig{})),
		otelresilience.Config{MeterProvider: noop.NewMeterProvider()}))
	ctx, fn := t.Context(), returning(nil)
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = p.Do(ctx, fn) }))
}
