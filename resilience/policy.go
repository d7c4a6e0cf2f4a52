package resilience

import (
	"context"

	internal "github.com/millrace-go/millrace/resilience/internal/target"
)

// Policy is what every policy and pipeline of this package is, and all that one
// of your own has to be. Do calls fn, maybe several times or not at all, and
// returns what came of it. It must be safe for concurrent use, call fn with ctx
// or a context derived from it, and not return while a call of fn is running.
type Policy interface {
	Do(ctx context.Context, fn func(ctx context.Context) error) error
}

// PolicyFunc is a function as a Policy.
type PolicyFunc func(ctx context.Context, fn func(ctx context.Context) error) error

// Do calls f.
func (f PolicyFunc) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	return f(ctx, fn)
}

// Must returns v and panics if err is not nil. It is for policies whose
// configuration is part of the program:
//
//	var breaker = resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "payments"}))
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// layer is a policy that passes a call on without allocating for it.
type layer interface {
	do(ctx context.Context, c call) error
	describe() Description
}

// call is what is left to do of a call: the layers further in, then the target.
// It is passed by value, in registers; what changes it does so in place, because
// a copy in memory takes longer than most layers.
type call struct {
	rest   *link
	target target
	now    int64   // the time of entry, or 0 when nobody has asked the clock yet
	paid   *Budget // has counted the call
}

// link is one layer of a pipeline and those within it.
type link struct {
	layer layer
	inner *link
}

// run passes the call to the next layer.
func (c call) run(ctx context.Context) error {
	l := c.rest
	if l == nil {
		if fn, ok := c.target.(function); ok { // as mostly: one call less
			return fn(ctx)
		}
		return c.target.Run(ctx)
	}
	c.rest = l.inner
	return l.layer.do(ctx, c)
}

// clock returns the time of entry, asking the clock if nobody has.
func (c *call) clock() int64 {
	if c.now == 0 {
		c.now = now()
	}
	return c.now
}

// pay counts the call with b, once however many of its policies share b.
func (c *call) pay(b *Budget) {
	if c.paid != b {
		b.earn()
		c.paid = b
	}
}

// again makes it the call of another attempt, which enters at another time.
func (c *call) again() { c.now = 0 }

// target is the function at the centre of a call.
type target = internal.Target

func init() {
	internal.Do = func(ctx context.Context, policy any, t target) error {
		return asLayer(policy).do(ctx, call{target: t})
	}
}

// function is a target without a result.
type function func(ctx context.Context) error

func (f function) Run(ctx context.Context) error { return f(ctx) }
func (f function) Fork() target                  { return f }
func (f function) Join(target)                   {}

// remainder is what is left of a call as the target of another pipeline.
type remainder struct{ call call }

func (r *remainder) Run(ctx context.Context) error {
	c := r.call
	c.again()
	return c.run(ctx)
}

func (r *remainder) Fork() target {
	c := r.call
	c.target = c.target.Fork()
	return &remainder{c}
}

func (r *remainder) Join(fork target) { r.call.target.Join(fork.(*remainder).call.target) }
