package otelsaga

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace-go/millrace/saga"
)

const scope = "github.com/millrace-go/millrace/saga/otelsaga"

const (
	keyName   = attribute.Key("millrace.saga.name")
	keyEvent  = attribute.Key("millrace.saga.event")
	keyStatus = attribute.Key("millrace.saga.status")
)

// Config says where metrics go. The zero value is the global provider.
type Config struct {
	// MeterProvider defaults to otel.GetMeterProvider().
	MeterProvider metric.MeterProvider
}

func (cfg Config) meter() metric.Meter {
	if cfg.MeterProvider == nil {
		return otel.GetMeterProvider().Meter(scope)
	}
	return cfg.MeterProvider.Meter(scope)
}

// buckets of durations, in seconds: sagas take milliseconds or weeks.
var buckets = metric.WithExplicitBucketBoundaries(0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 6*3600, 24*3600, 7*24*3600, 30*24*3600)

// NewObserver returns an observer for saga.Config. It is safe for concurrent use.
func NewObserver(cfg Config) (func(saga.Observation), error) {
	m := cfg.meter()
	transitions, err := m.Int64Counter("millrace.saga.transitions", metric.WithUnit("{transition}"),
		metric.WithDescription("Transitions of instances that were stored."))
	if err != nil {
		return nil, fmt.Errorf("otelsaga: %w", err)
	}
	wait, err := m.Float64Histogram("millrace.saga.transition.wait", metric.WithUnit("s"), buckets,
		metric.WithDescription("Time from a transition to the next of the same instance."))
	if err != nil {
		return nil, fmt.Errorf("otelsaga: %w", err)
	}
	duration, err := m.Float64Histogram("millrace.saga.duration", metric.WithUnit("s"), buckets,
		metric.WithDescription("Time from the start of an instance to its end."))
	if err != nil {
		return nil, fmt.Errorf("otelsaga: %w", err)
	}
	return func(o saga.Observation) {
		ctx, i := context.Background(), o.Instance
		name, status := keyName.String(i.Saga), keyStatus.String(string(i.Status))
		transitions.Add(ctx, 1, metric.WithAttributes(name, keyEvent.String(withoutRound(o.Event)), status))
		if i.Revision > 1 {
			wait.Record(ctx, o.Waited.Seconds(), metric.WithAttributes(name, keyEvent.String(withoutRound(o.Event))))
		}
		if i.Status.Ended() {
			duration.Record(ctx, i.Updated.Sub(i.Created).Seconds(), metric.WithAttributes(name, status))
		}
	}, nil
}

// withoutRound keeps the rounds of loops out of attributes.
func withoutRound(event string) string {
	event, _, _ = strings.Cut(event, "#")
	return event
}

// Watch has the instances of sagas counted when metrics are collected, which asks
// the store. Unregister the result to end that.
func Watch(o *saga.Orchestrator, cfg Config, sagas ...string) (metric.Registration, error) {
	m := cfg.meter()
	instances, err := m.Int64ObservableUpDownCounter("millrace.saga.instances", metric.WithUnit("{instance}"),
		metric.WithDescription("Instances by status."))
	if err != nil {
		return nil, fmt.Errorf("otelsaga: %w", err)
	}
	age, err := m.Float64ObservableGauge("millrace.saga.stuck.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the last transition of the instance that is stuck for longest, 0 if none is."))
	if err != nil {
		return nil, fmt.Errorf("otelsaga: %w", err)
	}
	return m.RegisterCallback(func(ctx context.Context, to metric.Observer) error {
		for _, name := range sagas {
			counts, err := o.Count(ctx, name)
			if err != nil {
				return fmt.Errorf("otelsaga: saga %q: %w", name, err)
			}
			for _, s := range []saga.Status{saga.Running, saga.Compensating, saga.Completed, saga.Compensated, saga.Stuck} {
				to.ObserveInt64(instances, counts[s], metric.WithAttributes(keyName.String(name), keyStatus.String(string(s))))
			}
			oldest, err := oldestStuck(ctx, o, name, counts[saga.Stuck])
			if err != nil {
				return fmt.Errorf("otelsaga: saga %q: %w", name, err)
			}
			to.ObserveFloat64(age, oldest.Seconds(), metric.WithAttributes(keyName.String(name)))
		}
		return nil
	}, instances, age)
}

// oldestStuck is exact for up to a thousand stuck instances, and at least as old
// as the thousandth beyond.
func oldestStuck(ctx context.Context, o *saga.Orchestrator, name string, stuck int64) (time.Duration, error) {
	if stuck == 0 {
		return 0, nil
	}
	all, err := o.List(ctx, saga.Query{Saga: name, Status: []saga.Status{saga.Stuck}, Limit: 1000})
	if err != nil || len(all) == 0 {
		return 0, err
	}
	return time.Since(all[len(all)-1].Updated), nil
}
