package otelresilience_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/otelresilience"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("down")

func returning(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// metered returns a Config and what reads the metrics by name.
func metered() (otelresilience.Config, *metric.ManualReader) {
	reader := metric.NewManualReader()
	return otelresilience.Config{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))}, reader
}

func collect(t *testing.T, reader *metric.ManualReader) map[string]metricdata.Metrics {
	t.Helper()
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(t.Context(), &all))
	byName := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		require.Equal(t, "github.com/millrace-go/millrace/resilience/otelresilience", scope.Scope.Name)
		for _, m := range scope.Metrics {
			byName[m.Name] = m
		}
	}
	return byName
}

// sums returns the values of a sum by their attributes, without prefixes.
func sums(t *testing.T, m metricdata.Metrics) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
		all[text(p.Attributes)] = p.Value
	}
	return all
}

func text(set attribute.Set) string {
	return set.Encoded(attribute.DefaultEncoder())
}

func registryOf(t *testing.T, config string, observer resilience.Observer) *resilience.Registry {
	t.Helper()
	cfg, err := resilience.ParseConfig([]byte(config))
	require.NoError(t, err)
	r, err := resilience.NewRegistry(cfg, resilience.RegistryConfig{Observer: observer})
	require.NoError(t, err)
	return r
}
