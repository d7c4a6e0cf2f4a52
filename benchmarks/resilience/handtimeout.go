package main

import (
	"context"
	"sync/atomic"
	"time"
)

// handContext makes its timer when somebody asks for Done, and knows nothing of
// the end of its parent then. It is the least that a deadline takes.
type handContext struct {
	context.Context
	at    int64 // in the time of sinceStart
	timer atomic.Pointer[handTimer]
}

type handTimer struct {
	done chan struct{}
	*time.Timer
}

func (c *handContext) left() time.Duration { return time.Duration(c.at - sinceStart()) }

func (c *handContext) Deadline() (time.Time, bool) { return time.Now().Add(c.left()), true }

func (c *handContext) Err() error {
	if c.left() <= 0 {
		return context.DeadlineExceeded
	}
	return c.Context.Err()
}

func (c *handContext) Done() <-chan struct{} {
	if t := c.timer.Load(); t != nil {
		return t.done
	}
	done := make(chan struct{})
	t := &handTimer{done, time.AfterFunc(c.left(), func() { close(done) })}
	if !c.timer.CompareAndSwap(nil, t) {
		t.Stop()
	}
	return c.timer.Load().done
}

func handTimeout(ctx context.Context, fn func(context.Context) error) error {
	c := &handContext{Context: ctx, at: sinceStart() + int64(time.Second)}
	err := fn(c)
	if t := c.timer.Load(); t != nil {
		t.Stop()
	}
	return err
}
