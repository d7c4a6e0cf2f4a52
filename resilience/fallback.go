package resilience

import (
	"context"
	"fmt"
	"sync/atomic"
)

// FallbackConfig configures a Fallback.
type FallbackConfig struct {
	Name string // in errors, events and metrics

	// Do is called, with the error, for a call that failed; what it returns counts.
	// It is required.
	Do func(ctx context.Context, err error) error
	// If says for which errors. Defaults to all but those that Classify finds
	// Cancelled.
	If func(err error) bool
	// Observer is told about EventFellBack.
	Observer Observer
}

// Fallback does something else when a call fails. It belongs outermost. For a
// function with a value see GetOr.
type Fallback struct {
	cfg      FallbackConfig
	fellBack atomic.Int64
}

// FallbackStats counts what a Fallback has done since it was made.
type FallbackStats struct {
	FellBack int64
}

// NewFallback returns a policy, or all that is wrong with cfg.
func NewFallback(cfg FallbackConfig) (*Fallback, error) {
	c := checking("fallback", cfg.Name)
	c.that(cfg.Do != nil, "Do must not be nil")
	if err := c.err(); err != nil {
		return nil, err
	}
	if cfg.If == nil {
		cfg.If = func(err error) bool { return Classify(err) != Cancelled }
	}
	return &Fallback{cfg: cfg}, nil
}

// Do calls fn, and the fallback if fn fails.
func (f *Fallback) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	return f.do(ctx, call{target: function(fn)})
}

func (f *Fallback) do(ctx context.Context, c call) error {
	err := c.run(ctx)
	if err == nil || !f.cfg.If(err) {
		return err
	}
	c.target.Join(c.target.Fork()) // a value beside the error is not the fallback's
	f.fellBack.Add(1)
	f.cfg.Observer.tell(Event{Kind: EventFellBack, Policy: f.cfg.Name, Type: "fallback", Err: err})
	if second := f.cfg.Do(ctx, err); second != nil {
		return fmt.Errorf("resilience: fallback%s: %w; it was asked because of: %w", quoted(f.cfg.Name), second, err)
	}
	return nil
}

// Stats returns what the policy has done.
func (f *Fallback) Stats() FallbackStats { return FallbackStats{FellBack: f.fellBack.Load()} }

func (f *Fallback) describe() Description {
	return Description{Kind: "fallback", Name: f.cfg.Name, Settings: "a function"}
}
