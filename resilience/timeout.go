package resilience

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// TimeoutConfig configures a Timeout.
type TimeoutConfig struct {
	Name string // in errors, events and metrics

	// After is how long a call may take. It is required: nobody else knows.
	After time.Duration
	// Observer is told about EventTimedOut.
	Observer Observer
}

// Timeout ends the context of calls that take too long. Outside of a Retry it
// bounds all attempts together, inside of it each one.
//
// The context ends for real: it has the deadline, its Done channel is closed, and
// its cause is a *TimeoutError. Do waits for the function, which must watch its
// context; nothing can stop one that doesn't, and abandoning it would leak it. A
// function that succeeds all the same, late, has succeeded. The context also
// ends when Do returns.
//
// The timer behind it is made when somebody asks for Done: until then a Timeout
// costs one clock reading and one allocation.
type Timeout struct {
	cfg      TimeoutConfig
	cause    error         // of contexts whose time is up
	timedOut *atomic.Int64 // shared with successors
}

// TimeoutStats counts what a Timeout has done since it was made.
type TimeoutStats struct {
	TimedOut int64 // calls that failed after their time was up
}

// NewTimeout returns a policy, or all that is wrong with cfg.
func NewTimeout(cfg TimeoutConfig) (*Timeout, error) {
	c := checking("timeout", cfg.Name)
	c.positive("After", cfg.After)
	if err := c.err(); err != nil {
		return nil, err
	}
	return &Timeout{cfg: cfg, cause: &TimeoutError{Policy: cfg.Name, After: cfg.After}, timedOut: new(atomic.Int64)}, nil
}

// Do calls fn with a context that ends in time.
func (t *Timeout) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	d := t.begin(ctx, now())
	defer d.finish()
	return t.outcome(d, fn(d))
}

func (t *Timeout) do(ctx context.Context, c call) error {
	d := t.begin(ctx, c.clock())
	defer d.finish()
	return t.outcome(d, c.run(d))
}

func (t *Timeout) begin(ctx context.Context, now int64) *deadlineContext {
	return &deadlineContext{Context: ctx, timeout: t, at: now + int64(t.cfg.After)}
}

// outcome tells errors of calls whose time is up from others.
func (t *Timeout) outcome(d *deadlineContext, err error) error {
	if err == nil || !d.expired() {
		return err
	}
	t.timedOut.Add(1)
	err = &TimeoutError{Policy: t.cfg.Name, After: t.cfg.After, Err: err}
	t.cfg.Observer.tell(Event{Kind: EventTimedOut, Policy: t.cfg.Name, Type: "timeout", Err: err})
	return err
}

// Stats returns what the policy has done.
func (t *Timeout) Stats() TimeoutStats { return TimeoutStats{TimedOut: t.timedOut.Load()} }

func (t *Timeout) describe() Description {
	return Description{Kind: "timeout", Name: t.cfg.Name, Settings: fmt.Sprint(t.cfg.After)}
}
