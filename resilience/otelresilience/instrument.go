package otelresilience

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace-go/millrace/resilience"
)

// Instrument returns p with a measurement of each call under the given name.
// What the context of the call carries, such as its span, becomes an exemplar
// where the provider takes some. Apart from what the provider does, a call costs
// two readings of the clock and allocates nothing.
func Instrument(name string, p resilience.Policy, cfg Config) (resilience.Policy, error) {
	duration, err := cfg.meter().Float64Histogram("millrace.resilience.call.duration",
		metric.WithUnit("s"), metric.WithDescription("Duration of calls through a policy, with all attempts and pauses."),
		metric.WithExplicitBucketBoundaries(0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60))
	if err != nil {
		return nil, fmt.Errorf("otelresilience: policy %q: %w", name, err)
	}
	var options [outcomes][]metric.RecordOption
	for o := range outcomes {
		set := attribute.NewSet(keyPolicy.String(name), keyOutcome.String(o.String()))
		options[o] = []metric.RecordOption{metric.WithAttributeSet(set)}
	}
	return resilience.Measure(p, func(ctx context.Context, took time.Duration, err error) {
		duration.Record(ctx, took.Seconds(), options[outcomeOf(err)]...)
	}), nil
}

// outcome is what came of a call.
type outcome int

const (
	success outcome = iota
	transient
	throttled
	permanent
	cancelled
	rejected
	panicked
	outcomes // how many there are
)

func (o outcome) String() string {
	return [...]string{"success", "transient", "throttled", "permanent", "cancelled", "rejected", "panicked"}[o]
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return success
	case err == resilience.ErrPanicked: //nolint:errorlint // the very value that Measure passes
		return panicked
	case resilience.IsRejected(err):
		return rejected
	}
	switch resilience.Classify(err) {
	case resilience.Throttled:
		return throttled
	case resilience.Permanent:
		return permanent
	case resilience.Cancelled:
		return cancelled
	}
	return transient
}
