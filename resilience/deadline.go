package resilience

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// deadlineContext is a context with a deadline whose timer is made by the first
// Done, since many functions never ask for it. Its size is most of what a Timeout
// costs, so what few ask for is in lateContext.
type deadlineContext struct {
	context.Context // the parent
	timeout         *Timeout
	at              int64 // in the time of now

	finished atomic.Bool
	late     atomic.Pointer[lateContext]
}

// lateContext is what a deadlineContext gets when somebody asks for its deadline
// and, once it is watched, for its end.
type lateContext struct {
	deadline time.Time // without the parent's; it is the same each time

	watched atomic.Bool
	mu      sync.Mutex // guards changes of what follows, which is set before watched
	context.Context
	cancel context.CancelFunc
}

// Deadline returns the parent's if that is earlier.
func (d *deadlineContext) Deadline() (time.Time, bool) {
	own := d.asked().deadline
	if parent, ok := d.Context.Deadline(); ok && parent.Before(own) {
		return parent, true
	}
	return own, true
}

func (d *deadlineContext) asked() *lateContext {
	if l := d.late.Load(); l != nil {
		return l
	}
	t := time.Now()
	l := &lateContext{deadline: t.Add(time.Duration(d.at - int64(t.Sub(base))))}
	if d.late.CompareAndSwap(nil, l) {
		return l
	}
	return d.late.Load()
}

func (d *deadlineContext) Done() <-chan struct{} { return d.watched().Done() }

// timed returns what watched has made, or nil.
func (d *deadlineContext) timed() *lateContext {
	if l := d.late.Load(); l != nil && l.watched.Load() {
		return l
	}
	return nil
}

// watched makes the timer.
func (d *deadlineContext) watched() *lateContext {
	if l := d.timed(); l != nil {
		return l
	}
	l := d.asked()
	l.set(context.WithDeadlineCause(d.Context, l.deadline, d.timeout.cause))
	if d.finished.Load() {
		l.cancel()
	}
	return l
}

// AfterEnd is context.AfterFunc for who needs no Done, which spares what that
// makes: f is called, once or twice, when the time is up or the parent has ended,
// but not when the call is over. stop reports whether it came first.
func (d *deadlineContext) AfterEnd(f func()) (stop func() bool) {
	timer := time.AfterFunc(time.Duration(d.at-now()), f)
	if d.Context.Done() == nil {
		return timer.Stop
	}
	forget := context.AfterFunc(d.Context, f)
	return func() bool {
		inTime := forget()
		return timer.Stop() && inTime
	}
}

// set keeps the first ctx that it is given and cancels others.
func (l *lateContext) set(ctx context.Context, cancel context.CancelFunc) {
	l.mu.Lock()
	first := !l.watched.Load()
	if first {
		l.Context, l.cancel = ctx, cancel
		l.watched.Store(true)
	}
	l.mu.Unlock()
	if !first {
		cancel()
	}
}

func (d *deadlineContext) Err() error {
	if l := d.timed(); l != nil {
		return l.Err()
	}
	if err := d.Context.Err(); err != nil {
		return err
	}
	if d.finished.Load() || now() >= d.at {
		return d.watched().Err()
	}
	return nil
}

// Value lets package context find its own in what was made by Done, so that
// contexts derived from d need no goroutine and learn the cause.
func (d *deadlineContext) Value(key any) any {
	if l := d.timed(); l != nil {
		return l.Value(key)
	}
	return d.Context.Value(key)
}

// expired reports whether the time is up, and not because the parent ended.
func (d *deadlineContext) expired() bool {
	if d.Context.Err() != nil {
		return false
	}
	if l := d.timed(); l != nil {
		return l.Err() != nil
	}
	return now() >= d.at
}

// finish ends the context: the call is over. A Done that comes at the same time
// either sees that, or is seen here.
func (d *deadlineContext) finish() {
	d.finished.Store(true)
	if l := d.timed(); l != nil {
		l.cancel()
	}
}
