package eventbus

import (
	"context"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/millrace-go/millrace/internal/hop"
)

// Policy calls a function, or turns the call away; those of package resilience
// do. An error whose method Rejected() bool returns true says that the function
// was not called, and its RetryAfter() time.Duration when that may change.
type Policy interface {
	Do(ctx context.Context, fn func(ctx context.Context) error) error
}

// Through has every try at handling an event go through p. Each call of the
// function is one of the handler, with its own timeout and the message as it
// arrived.
//
// A call that p turns away, because a circuit breaker is open or a limit is
// reached, pauses the handler's intake: the event keeps its place, with those
// behind it, until p lets it through. It costs neither a try nor a redelivery. An
// error of the handler itself, such as that of a breaker it uses, is a failure
// like another.
//
// A Retry as p retries the first try at an event only, since the others are
// themselves retries; and p should not be a Hedge, which would have two calls
// handle one event at a time.
func Through(p Policy) HandlerOption {
	return func(c *handlerConfig) { c.policy = p }
}

// through is try through the policy. A policy that panics has failed like a
// handler.
func (h *handler) through(in *incoming, try int) (err error) {
	ctx, cancel := h.bounded(in, try)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return h.cfg.policy.Do(ctx, func(ctx context.Context) error { return h.once(ctx, in, try) })
}

// bounded returns the context of the policy, which is not to wait for longer than
// the event is of use, nor to retry what is a retry.
func (h *handler) bounded(in *incoming, try int) (context.Context, context.CancelFunc) {
	ctx := h.hard
	if n := in.previous(try); n > 0 {
		ctx = hop.With(ctx, n)
	}
	if in.expires.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, in.expires)
}

// Pauses of a delivery that a policy turns away.
const (
	shortestPause = 10 * time.Millisecond
	longestPause  = 30 * time.Second
	// longestHold is how long an event waits before it is given back and fetched
	// again: brokers close the connections of consumers that don't answer, RabbitMQ
	// after half an hour.
	longestHold = 10 * time.Minute
)

// pausing is the wait of one delivery for its policy.
type pausing struct {
	handler *handler
	since   time.Time
	pause   time.Duration
}

// wait reports false when the event is to be given back.
func (p *pausing) wait(v verdict) bool {
	now := time.Now()
	if p.since.IsZero() {
		p.since = now
	}
	if now.Sub(p.since) > longestHold {
		return false
	}
	if p.handler.paused.CompareAndSwap(false, true) {
		p.handler.log.Warn("eventbus: intake is paused: the policy lets no calls through", "error", v.text)
	}
	p.pause = max(shortestPause, min(2*p.pause, time.Second))
	d := min(max(p.pause, v.after), longestPause)
	return p.handler.pause(d + rand.N(d/4+1))
}

// over says that calls get through again.
func (p *pausing) over() {
	if p.handler.paused.Load() && p.handler.paused.CompareAndSwap(true, false) {
		p.handler.log.Info("eventbus: intake goes on")
	}
}
