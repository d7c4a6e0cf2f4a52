package httpresilience

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// attemptContext is the context of an attempt. It has the policy's values and ends
// with the policy's until the headers have arrived, and then only with the
// caller's: the policy's ends when its call returns, and the body is read after
// that. It is linked to them by the first Done, as the context of a Timeout gets
// its timer.
type attemptContext struct {
	policy, caller context.Context
	linked         atomic.Pointer[linkedContext] // changed with the lock held

	mu       sync.Mutex // guards what follows
	released bool       // from the policy
	over     bool
}

// linkedContext is what an attemptContext is once somebody watches it.
type linkedContext struct {
	context.Context
	cancel                     context.CancelCauseFunc
	unlinkCaller, unlinkPolicy func() bool
}

// Deadline returns none: it would be another one when the headers have arrived.
func (c *attemptContext) Deadline() (time.Time, bool) { return time.Time{}, false }

func (c *attemptContext) Done() <-chan struct{} { return c.watched().Done() }

func (c *attemptContext) Err() error {
	if l := c.linked.Load(); l != nil {
		return l.Err()
	}
	if over, by := c.until(); !over && by.Err() == nil {
		return nil
	}
	return c.watched().Err()
}

// Value lets package context find its own in what was made by Done, and until then
// the policy's while the context ends with that.
func (c *attemptContext) Value(key any) any {
	if l := c.linked.Load(); l != nil {
		return l.Value(key)
	}
	if _, by := c.until(); by == c.caller {
		return context.WithoutCancel(c.policy).Value(key)
	}
	return c.policy.Value(key)
}

// until returns whether the attempt is over, and otherwise what it ends with.
func (c *attemptContext) until() (over bool, by context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released {
		return c.over, c.caller
	}
	return c.over, c.policy
}

// watched makes what somebody waits for.
func (c *attemptContext) watched() *linkedContext {
	if l := c.linked.Load(); l != nil {
		return l
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.linked.Load(); l != nil {
		return l
	}
	l := &linkedContext{unlinkCaller: unlinked, unlinkPolicy: unlinked}
	l.Context, l.cancel = context.WithCancelCause(context.WithoutCancel(c.policy))
	if c.over {
		l.cancel(nil)
	} else {
		l.unlinkCaller = l.endWith(c.caller)
	}
	if !c.released && c.endsEarlier() {
		l.unlinkPolicy = l.endWith(c.policy)
	}
	c.linked.Store(l)
	return l
}

func unlinked() bool { return true }

// endsEarlier reports whether the policy's context may end before the caller's.
func (c *attemptContext) endsEarlier() bool {
	_, ok := c.policy.(timed)
	return ok || c.policy.Done() != c.caller.Done()
}

// timed is the context of a Timeout, which tells of its end for less than Done
// takes.
type timed interface {
	AfterEnd(f func()) (stop func() bool)
}

// endWith ends the context with another one until that is undone, which reports
// whether it was in time.
func (l *linkedContext) endWith(ctx context.Context) (undo func() bool) {
	after, ok := ctx.(timed)
	if !ok && ctx.Done() == nil {
		return unlinked
	}
	if ctx.Err() != nil {
		l.cancel(context.Cause(ctx)) // and not soon, in a goroutine
		return func() bool { return false }
	}
	end := func() { l.cancel(context.Cause(ctx)) }
	if ok {
		return after.AfterEnd(end)
	}
	return context.AfterFunc(ctx, end)
}

// release unties the context from the policy's. It reports false when that has
// ended it.
func (c *attemptContext) release() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released = true
	l := c.linked.Load()
	return l == nil || l.unlinkPolicy()
}

// end ends the context. It may be called again.
func (c *attemptContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.over = true
	if l := c.linked.Load(); l != nil {
		l.unlinkCaller()
		l.cancel(nil)
	}
}
