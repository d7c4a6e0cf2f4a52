package resilience

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// RegistryConfig is what a Registry needs besides the Config that comes from a
// file. The zero value is fine.
type RegistryConfig struct {
	// Observer is told about the events of all policies.
	Observer Observer
	// Custom are policies of one's own, to which pipelines refer by name:
	// {"policy": "name"}. Their events and Stats are not the registry's.
	Custom map[string]Policy
}

// Registry has the pipelines of a Config, which Reload changes while they are in
// use. It is safe for concurrent use.
type Registry struct {
	cfg     RegistryConfig
	current atomic.Pointer[generation]

	mu      sync.Mutex // held while reloading; guards what there has ever been, by name
	handles map[string]*NamedPolicy
	made    map[string]made
	budgets map[string]*Budget
}

// ErrUnknownPolicy is in the chain of errors about names that a Registry does not
// know.
var ErrUnknownPolicy = errors.New("unknown policy")

// NewRegistry makes the policies of cfg, or returns a *ConfigError with all that
// is wrong with it.
func NewRegistry(cfg Config, opts RegistryConfig) (*Registry, error) {
	opts.Custom = maps.Clone(opts.Custom)
	r := &Registry{
		cfg:     opts,
		handles: map[string]*NamedPolicy{}, made: map[string]made{}, budgets: map[string]*Budget{},
	}
	if err := r.Reload(cfg); err != nil {
		return nil, err
	}
	return r, nil
}

// Reload makes the policies what cfg says, or changes nothing and returns a
// *ConfigError with all that is wrong with it.
//
// Calls under way finish in the pipeline in which they began; calls that begin
// after Reload has returned go through the new one. A policy that keeps its name
// and kind keeps its state:
//
//   - one whose settings are the same is not touched;
//   - a circuit breaker stays in its state, an open one no longer than the new
//     OpenFor from now, a half-open one with new probes; a closed one keeps its
//     counts if the window has the same length. Calls under way are not counted
//     if its settings change;
//   - a bulkhead counts calls that are under way: at no time are there more than
//     the larger of both limits, and no call enters while there are as many as the
//     new one. Those who wait keep their place;
//   - a rate limiter and a budget keep what is saved, up to the new burst;
//   - an adaptive limiter keeps its limit, within the new bounds, and a hedge its
//     estimate, if it has the same quantile and beginning.
//
// A pipeline that cfg has no more goes on as it was for those who have it; it is
// not known to Policy, and when it comes back, they get the new one.
func (r *Registry) Reload(cfg Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next, err := r.build(cfg)
	if err != nil {
		return err
	}
	for _, commit := range next.commits {
		commit()
	}
	next.commits = nil
	for name, p := range next.pipelines {
		h, ok := r.handles[name]
		if !ok {
			h = &NamedPolicy{name: name}
			r.handles[name] = h
		}
		h.pipeline.Store(p)
		next.handles[name] = h
	}
	maps.Copy(r.made, next.made)
	maps.Copy(r.budgets, next.budgets)
	r.current.Store(next)
	return nil
}

// Policy returns the pipeline of that name. It stays the same, and up to date,
// over all reloads.
func (r *Registry) Policy(name string) (*NamedPolicy, error) {
	g := r.current.Load()
	if h, ok := g.handles[name]; ok {
		return h, nil
	}
	return nil, fmt.Errorf("resilience: registry: %w %q; known are %s", ErrUnknownPolicy, name, list(g.handles))
}

// Names returns the names of the pipelines in order.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(r.current.Load().handles)) }

// CircuitBreaker returns the breaker of that name, for example to isolate it. It
// stays the same over reloads, as long as there is one of that name.
func (r *Registry) CircuitBreaker(name string) (*CircuitBreaker, error) {
	all := r.CircuitBreakers()
	if b, ok := all[name]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("resilience: registry: %w %q; known circuit breakers are %s", ErrUnknownPolicy, name, list(all))
}

// CircuitBreakers returns the breakers by name.
func (r *Registry) CircuitBreakers() map[string]*CircuitBreaker {
	all := map[string]*CircuitBreaker{}
	for name, m := range r.current.Load().made {
		if b, ok := m.policy.(*CircuitBreaker); ok {
			all[name] = b
		}
	}
	return all
}

// Describe returns the policies of each pipeline, outermost first.
func (r *Registry) Describe() map[string][]Description {
	all := map[string][]Description{}
	for name, p := range r.current.Load().pipelines {
		all[name] = p.Describe()
	}
	return all
}

// String returns the pipelines, one a line.
func (r *Registry) String() string {
	g := r.current.Load()
	var s strings.Builder
	for _, name := range slices.Sorted(maps.Keys(g.pipelines)) {
		fmt.Fprintf(&s, "%s: %v\n", name, g.pipelines[name])
	}
	return s.String()
}

// NamedPolicy is a pipeline of a Registry, which reloads change beneath it. It
// costs one atomic load more than the Pipeline.
type NamedPolicy struct {
	name     string
	pipeline atomic.Pointer[Pipeline]
}

// Name returns the pipeline's name.
func (p *NamedPolicy) Name() string { return p.name }

// Do calls fn through the policies of the pipeline as it is now.
func (p *NamedPolicy) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	return p.pipeline.Load().Do(ctx, fn)
}

func (p *NamedPolicy) do(ctx context.Context, c call) error { return p.pipeline.Load().do(ctx, c) }

func (p *NamedPolicy) describe() Description { return p.pipeline.Load().describe() }

// String returns the policies, outermost first.
func (p *NamedPolicy) String() string { return p.pipeline.Load().String() }
