package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/millrace-go/millrace/resilience"
)

// EnvironmentVariable says in which environment the process runs.
const EnvironmentVariable = "MILLRACE_ENV"

// production is the environment where nobody has said which one it is.
const production = "production"

// Config says when a policy disturbs a call. The zero value is never.
type Config struct {
	Name string // in errors, events and metrics

	// Environments are those in which the policy is on. Production is one of them
	// only if it is named.
	Environments []string
	// Environment is the one in which it runs. Defaults to the value of
	// EnvironmentVariable, and to production if that is empty.
	Environment string
	// Rate is the share of calls, from 0 to 1, that are disturbed. Defaults to
	// none.
	Rate float64
	// Enabled, if not nil, must return true for a call to be disturbed, for example
	// for the calls of one tenant. It is asked only for calls whose turn it is.
	Enabled func(ctx context.Context) bool
	// Seed is for the same calls to be disturbed again. Defaults to a random one.
	Seed uint64
	// Observer is told about EventInjected.
	Observer resilience.Observer
}

// Policy is a resilience.Policy that disturbs some of its calls. It is safe for
// concurrent use.
type Policy struct {
	cfg      Config
	what     string
	disturb  disturbance
	on       bool
	calls    atomic.Uint64
	injected atomic.Int64
}

// disturbance stands in for a call of fn.
type disturbance func(ctx context.Context, p *Policy, draw draw, fn func(ctx context.Context) error) error

// Stats counts what a Policy has done since it was made.
type Stats struct {
	Injected int64 // calls disturbed
}

// ErrInjected is in the chain of errors that a policy of this package made; the
// error is an *Error.
var ErrInjected = errors.New("injected by chaos")

// Error is an error that was made on purpose.
type Error struct {
	Policy string // the policy's name
	Err    error  // the error that is pretended
}

// Error says that the error is not a real one.
func (e *Error) Error() string {
	if e.Policy == "" {
		return fmt.Sprintf("chaos: injected: %v", e.Err)
	}
	return fmt.Sprintf("chaos: injected by %q: %v", e.Policy, e.Err)
}

// Unwrap returns ErrInjected and the error that is pretended.
func (e *Error) Unwrap() []error { return []error{ErrInjected, e.Err} }

func newPolicy(cfg Config, what string, d disturbance, problems ...string) (*Policy, error) {
	if !(cfg.Rate >= 0 && cfg.Rate <= 1) {
		problems = append(problems, fmt.Sprintf("Rate must be from 0 to 1, got %v", cfg.Rate))
	}
	if slices.Contains(cfg.Environments, "") {
		problems = append(problems, "Environments must not contain an empty name")
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("chaos: policy %q: %s", cfg.Name, strings.Join(problems, "; "))
	}
	if cfg.Environment == "" {
		cfg.Environment = os.Getenv(EnvironmentVariable)
	}
	if cfg.Environment == "" {
		cfg.Environment = production
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	return &Policy{cfg: cfg, what: what, disturb: d, on: slices.Contains(cfg.Environments, cfg.Environment)}, nil
}

// Do calls fn, or disturbs the call.
func (p *Policy) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	if !p.on {
		return fn(ctx)
	}
	draw := draw{p.cfg.Seed, 2 * p.calls.Add(1)}
	if draw.first() >= p.cfg.Rate || p.cfg.Enabled != nil && !p.cfg.Enabled(ctx) {
		return fn(ctx)
	}
	return p.disturb(ctx, p, draw, fn)
}

// tell counts and reports a disturbance.
func (p *Policy) tell(err error) {
	p.injected.Add(1)
	if p.cfg.Observer != nil {
		p.cfg.Observer(resilience.Event{Kind: resilience.EventInjected, Policy: p.cfg.Name, Type: "chaos", Err: err})
	}
}

// Stats returns what the policy has done.
func (p *Policy) Stats() Stats { return Stats{Injected: p.injected.Load()} }

// On reports whether the policy is on in the environment in which it runs.
func (p *Policy) On() bool { return p.on }

// Describe says what the policy does, with the seed, or why it does nothing.
func (p *Policy) Describe() resilience.Description {
	s := fmt.Sprintf("%s for %g%% of calls, seed %d", p.what, 100*p.cfg.Rate, p.cfg.Seed)
	if !p.on {
		s = fmt.Sprintf("off in %s", p.cfg.Environment)
	}
	return resilience.Description{Kind: "chaos", Name: p.cfg.Name, Settings: s}
}

// String returns the description as text.
func (p *Policy) String() string { return p.Describe().String() }

// draw is two random numbers in [0, 1): SplitMix64 (Steele, Lea and Flood, "Fast
// Splittable Pseudorandom Number Generators", 2014) at two places of the
// sequence of a seed.
type draw struct{ seed, place uint64 }

func (d draw) first() float64  { return d.at(d.place) }
func (d draw) second() float64 { return d.at(d.place + 1) }

func (d draw) at(place uint64) float64 {
	z := d.seed + place*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return float64((z^z>>31)>>11) / (1 << 53)
}
