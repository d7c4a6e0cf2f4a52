package otelresilience

import (
	"log/slog"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const scope = "github.com/millrace-go/millrace/resilience/otelresilience"

// The attributes, see the package comment.
const (
	keyPolicy  = attribute.Key("millrace.resilience.policy.name")
	keyType    = attribute.Key("millrace.resilience.policy.type")
	keyKind    = attribute.Key("millrace.resilience.event.kind")
	keyState   = attribute.Key("millrace.resilience.state")
	keyOutcome = attribute.Key("millrace.resilience.outcome")
	keyBudget  = attribute.Key("millrace.resilience.budget.name")
)

// Config says where telemetry goes. The zero value is the global one.
type Config struct {
	// MeterProvider has the metrics. Defaults to otel.GetMeterProvider().
	MeterProvider metric.MeterProvider
	// Logger is told about changes of circuit breakers' states: at level warn when
	// calls are turned away from then on, at level info otherwise. Defaults to
	// slog.Default().
	Logger *slog.Logger
}

func (cfg Config) meter() metric.Meter {
	if cfg.MeterProvider == nil {
		return otel.GetMeterProvider().Meter(scope)
	}
	return cfg.MeterProvider.Meter(scope)
}

// logger is asked each time, as slog.SetDefault may come later.
func (cfg Config) logger() *slog.Logger {
	if cfg.Logger == nil {
		return slog.Default()
	}
	return cfg.Logger
}
