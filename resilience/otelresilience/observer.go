package otelresilience

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/millrace-go/millrace/resilience"
)

// NewObserver returns an observer, for any number of policies, that counts
// events and logs changes of circuit breakers' states.
func NewObserver(cfg Config) (resilience.Observer, error) {
	events, err := cfg.meter().Int64Counter("millrace.resilience.events",
		metric.WithUnit("{event}"), metric.WithDescription("What policies did off the path of calls that go well."))
	if err != nil {
		return nil, fmt.Errorf("otelresilience: observer: %w", err)
	}
	o := &observer{cfg: cfg, events: events, options: map[series][]metric.AddOption{}}
	return o.observe, nil
}

type observer struct {
	cfg    Config
	events metric.Int64Counter

	mu      sync.RWMutex
	options map[series][]metric.AddOption // made once for each series
}

// series is what tells counts apart.
type series struct {
	kind               resilience.EventKind
	policy, policyType string
	to                 resilience.State // of changes of state
}

func (o *observer) observe(e resilience.Event) {
	o.events.Add(context.Background(), 1, o.optionsOf(series{e.Kind, e.Policy, e.Type, e.To})...)
	if e.Kind == resilience.EventStateChange {
		o.log(e)
	}
}

func (o *observer) optionsOf(s series) []metric.AddOption {
	o.mu.RLock()
	options, ok := o.options[s]
	o.mu.RUnlock()
	if ok {
		return options
	}
	attrs := []attribute.KeyValue{keyPolicy.String(s.policy), keyType.String(s.policyType), keyKind.String(string(s.kind))}
	if s.kind == resilience.EventStateChange {
		attrs = append(attrs, keyState.String(s.to.String()))
	}
	options = []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(attrs...))}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.options[s] = options
	return options
}

func (o *observer) log(e resilience.Event) {
	level := slog.LevelInfo
	if e.To == resilience.Open || e.To == resilience.Isolated {
		level = slog.LevelWarn
	}
	o.cfg.logger().LogAttrs(context.Background(), level, e.Type+" changed its state",
		slog.String("policy", e.Policy), slog.String("from", e.From.String()), slog.String("to", e.To.String()))
}
