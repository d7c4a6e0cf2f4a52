package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// NewFault returns a policy whose disturbed calls return err, in an *Error,
// instead of calling the function. What Classify finds err to be, the *Error is.
func NewFault(err error, cfg Config) (*Policy, error) {
	var problems []string
	if err == nil {
		problems = append(problems, "the error must not be nil")
	}
	injected := &Error{cfg.Name, err}
	fault := func(_ context.Context, p *Policy, _ draw, _ func(context.Context) error) error {
		p.tell(injected)
		return injected
	}
	return newPolicy(cfg, fmt.Sprintf("error %q", fmt.Sprint(err)), fault, problems...)
}

// NewLatency returns a policy whose disturbed calls begin later, by a random time
// from least to most. If the context ends before, its error and the cause are
// returned and the function is not called.
func NewLatency(least, most time.Duration, cfg Config) (*Policy, error) {
	var problems []string
	if least < 0 || most < least || most == 0 {
		problems = append(problems, fmt.Sprintf("the latency must be positive, got %v to %v", least, most))
	}
	latency := func(ctx context.Context, p *Policy, draw draw, fn func(context.Context) error) error {
		p.tell(nil)
		if err := sleep(ctx, least+time.Duration(draw.second()*float64(most-least))); err != nil {
			return err
		}
		return fn(ctx)
	}
	what := fmt.Sprintf("latency of %v to %v", least, most)
	if least == most {
		what = fmt.Sprintf("latency of %v", most)
	}
	return newPolicy(cfg, what, latency, problems...)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		err, cause := ctx.Err(), context.Cause(ctx)
		if errors.Is(cause, err) {
			return cause
		}
		return fmt.Errorf("%w: %w", err, cause)
	}
}

// NewOutcome returns a policy whose disturbed calls call the function and return
// what replace makes of its error, either of which may be nil: a call can fail
// after all was done, because the answer was lost.
func NewOutcome(replace func(ctx context.Context, err error) error, cfg Config) (*Policy, error) {
	var problems []string
	if replace == nil {
		problems = append(problems, "the function that replaces outcomes must not be nil")
	}
	outcome := func(ctx context.Context, p *Policy, _ draw, fn func(context.Context) error) error {
		err := replace(ctx, fn(ctx))
		p.tell(err)
		return err
	}
	return newPolicy(cfg, "another outcome", outcome, problems...)
}

// NewPanic returns a policy whose disturbed calls panic with value instead of
// calling the function.
func NewPanic(value any, cfg Config) (*Policy, error) {
	var problems []string
	if value == nil {
		problems = append(problems, "the value to panic with must not be nil")
	}
	fault := func(_ context.Context, p *Policy, _ draw, _ func(context.Context) error) error {
		p.tell(nil)
		panic(value)
	}
	return newPolicy(cfg, fmt.Sprintf("panic with %q", fmt.Sprint(value)), fault, problems...)
}
