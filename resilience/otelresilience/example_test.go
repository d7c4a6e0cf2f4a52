package otelresilience_test

import (
	"context"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/otelresilience"
)

func Example() {
	reader := metric.NewManualReader()
	telemetry := otelresilience.Config{MeterProvider: metric.NewMeterProvider(metric.WithReader(reader))}

	observer := resilience.Must(otelresilience.NewObserver(telemetry))
	cfg := resilience.Must(resilience.ParseConfig([]byte(`{"policies": {"payments": [{"retry": {}}, {"circuit_breaker": {}}]}}`)))
	registry := resilience.Must(resilience.NewRegistry(cfg, resilience.RegistryConfig{Observer: observer}))
	watch := resilience.Must(otelresilience.Watch(registry, telemetry))
	defer watch.Unregister()

	payments := resilience.Must(otelresilience.Instrument("payments", resilience.Must(registry.Policy("payments")), telemetry))
	_ = payments.Do(context.Background(), func(context.Context) error { return nil })

	var collected metricdata.ResourceMetrics
	_ = reader.Collect(context.Background(), &collected)
	var names []string
	for _, m := range collected.ScopeMetrics[0].Metrics {
		names = append(names, m.Name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Println(name)
	}
	// Output:
	// millrace.resilience.budget.left
	// millrace.resilience.call.duration
	// millrace.resilience.circuit_breaker.state
}

func ExampleNewObserver() {
	observer := resilience.Must(otelresilience.NewObserver(otelresilience.Config{})) // the global provider
	retry, err := resilience.NewRetry(resilience.RetryConfig{Name: "payments", Observer: observer})
	fmt.Println(retry != nil, err)
	// Output: true <nil>
}

func ExampleInstrument() {
	timeout := resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: 1e9}))
	p := resilience.Must(otelresilience.Instrument("payments", timeout, otelresilience.Config{}))
	fmt.Println(p.Do(context.Background(), func(context.Context) error { return nil }))
	// Output: <nil>
}

func ExampleWatch() {
	cfg := resilience.Must(resilience.ParseConfig([]byte(`{"policies": {"payments": [{"bulkhead": {}}]}}`)))
	registry := resilience.Must(resilience.NewRegistry(cfg, resilience.RegistryConfig{}))
	watch, err := otelresilience.Watch(registry, otelresilience.Config{})
	if err != nil {
		panic(err)
	}
	fmt.Println(watch.Unregister())
	// Output: <nil>
}
