package resilience

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Pipeline is several policies as one. It is immutable and safe for concurrent
// use.
type Pipeline struct {
	name   string
	first  *link
	layers []layer
}

// NewPipeline composes policies, the first one outermost:
//
//	NewPipeline("orders", a, b, c).Do(ctx, fn) = a(b(c(fn)))
//
// The name appears in descriptions and telemetry. A policy may be part of
// several pipelines, which then share its state. Without policies the pipeline
// just calls the function.
func NewPipeline(name string, policies ...Policy) (*Pipeline, error) {
	p := &Pipeline{name: name}
	var errs []error
	for i, policy := range policies {
		nested, ok := policy.(*Pipeline)
		switch {
		case isNil(policy):
			errs = append(errs, fmt.Errorf("policy %d is nil", i+1))
		case ok:
			p.layers = append(p.layers, nested.layers...)
		default:
			p.layers = append(p.layers, asLayer(policy))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("resilience: pipeline %q: %w", name, err)
	}
	for i := len(p.layers) - 1; i >= 0; i-- {
		p.first = &link{p.layers[i], p.first}
	}
	return p, nil
}

// isNil reports whether p is nil, or a nil pointer or function in disguise.
func isNil(p Policy) bool {
	v := reflect.ValueOf(p)
	return p == nil || (v.Kind() == reflect.Pointer || v.Kind() == reflect.Func) && v.IsNil()
}

// Name returns the pipeline's name.
func (p *Pipeline) Name() string { return p.name }

// Do calls fn through the policies.
func (p *Pipeline) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	return call{rest: p.first, target: function(fn)}.run(ctx)
}

func (p *Pipeline) do(ctx context.Context, c call) error {
	if c.rest == nil {
		return call{rest: p.first, target: c.target, now: c.now, paid: c.paid}.run(ctx)
	}
	return call{rest: p.first, target: &remainder{c}, now: c.now, paid: c.paid}.run(ctx)
}

// Description says what a policy is and how it is set up.
type Description struct {
	// Kind is the policy's kind: retry, circuit breaker, timeout, bulkhead, rate
	// limiter, adaptive limiter, hedge, fallback, chaos or custom.
	Kind string
	// Name is the policy's name, or empty.
	Name string
	// Settings are what it does, in words.
	Settings string
}

// String returns kind, name and settings.
func (d Description) String() string {
	s := d.Kind
	if d.Name != "" {
		s += " " + d.Name
	}
	return s + "(" + d.Settings + ")"
}

// Describe returns the policies, outermost first, for tests and consoles.
func (p *Pipeline) Describe() []Description {
	all := make([]Description, len(p.layers))
	for i, l := range p.layers {
		all[i] = l.describe()
	}
	return all
}

func (p *Pipeline) describe() Description {
	return Description{Kind: "pipeline", Name: p.name, Settings: p.String()}
}

// String returns the policies, outermost first.
func (p *Pipeline) String() string {
	parts := make([]string, len(p.layers))
	for i, l := range p.layers {
		parts[i] = l.describe().String()
	}
	return strings.Join(parts, " > ")
}
