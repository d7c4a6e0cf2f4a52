package otelresilience

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace-go/millrace/resilience"
)

// Watch has the states of r's policies read whenever metrics are collected, until
// the registration is ended.
func Watch(r *resilience.Registry, cfg Config) (metric.Registration, error) {
	meter := cfg.meter()
	w := &watch{registry: r}
	err := errors.Join(
		w.upDown(meter, &w.breakers, "circuit_breaker.state", "{circuit_breaker}", "1 for the state in which a circuit breaker is, 0 for the others."),
		w.upDown(meter, &w.bulkheads, "bulkhead.calls", "{call}", "Calls in a bulkhead, or waiting for their turn."),
		w.upDown(meter, &w.limited, "adaptive_limiter.calls", "{call}", "Calls that an adaptive limiter has let through and that are running."),
		w.upDown(meter, &w.limits, "adaptive_limiter.limit", "{call}", "How many calls an adaptive limiter lets run at a time."),
		w.upDown(meter, &w.budgets, "budget.left", "{retry}", "Retries that a budget has left."),
	)
	var hedgeErr error
	w.hedges, hedgeErr = meter.Float64ObservableGauge(prefix+"hedge.delay",
		metric.WithUnit("s"), metric.WithDescription("How long a hedge waits before another attempt begins."))
	if err = errors.Join(err, hedgeErr); err != nil {
		return nil, fmt.Errorf("otelresilience: watch: %w", err)
	}
	registration, err := meter.RegisterCallback(w.observe, append(w.all, w.hedges)...)
	if err != nil {
		return nil, fmt.Errorf("otelresilience: watch: %w", err)
	}
	return registration, nil
}

const prefix = "millrace.resilience."

type watch struct {
	registry *resilience.Registry
	all      []metric.Observable

	breakers, bulkheads, limited, limits, budgets metric.Int64ObservableUpDownCounter
	hedges                                        metric.Float64ObservableGauge
}

func (w *watch) upDown(meter metric.Meter, to *metric.Int64ObservableUpDownCounter, name, unit, description string) (err error) {
	*to, err = meter.Int64ObservableUpDownCounter(prefix+name, metric.WithUnit(unit), metric.WithDescription(description))
	w.all = append(w.all, *to)
	return err
}

func (w *watch) observe(_ context.Context, o metric.Observer) error {
	s := w.registry.Stats()
	for name, b := range s.CircuitBreakers {
		for _, state := range [...]resilience.State{resilience.Closed, resilience.Open, resilience.HalfOpen, resilience.Isolated} {
			o.ObserveInt64(w.breakers, oneIf(b.State == state), of(name, keyState.String(state.String())))
		}
	}
	for name, b := range s.Bulkheads {
		o.ObserveInt64(w.bulkheads, int64(b.Running), of(name, keyState.String("running")))
		o.ObserveInt64(w.bulkheads, int64(b.Waiting), of(name, keyState.String("waiting")))
	}
	for name, l := range s.AdaptiveLimiters {
		o.ObserveInt64(w.limited, int64(l.Running), of(name))
		o.ObserveInt64(w.limits, int64(l.Limit), of(name))
	}
	for name, left := range s.Budgets {
		o.ObserveInt64(w.budgets, int64(left), metric.WithAttributes(keyBudget.String(name)))
	}
	for name, h := range s.Hedges {
		o.ObserveFloat64(w.hedges, h.After.Seconds(), of(name))
	}
	return nil
}

func of(policy string, more ...attribute.KeyValue) metric.ObserveOption {
	return metric.WithAttributes(append(more, keyPolicy.String(policy))...)
}

func oneIf(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
