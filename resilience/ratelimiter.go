package resilience

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"time"
)

// RateLimiterConfig configures a RateLimiter.
type RateLimiterConfig struct {
	Name string // in errors, events and metrics

	// Calls is how many calls there may be in each Per, in the long run. It is
	// required.
	Calls int
	// Per is the time of that many calls. Defaults to a second.
	Per time.Duration
	// Burst is how many calls may come at once after a quiet time. With the
	// default, 1, calls are spread evenly, Per/Calls apart. Of 64 or more, up to a
	// thirty-second part, 63 at most, may be missing: see RateLimiter.
	Burst int
	// MaxWait is how long a call may wait for its turn; one that gives up before
	// has used its place. Defaults to not at all.
	MaxWait time.Duration
	// Observer is told about EventRejected.
	Observer Observer
}

// RateLimiter bounds how many calls begin in a time. Calls beyond that wait, up
// to MaxWait and the deadline of their context, or are turned away with
// ErrRateLimited and the time after which there is room.
//
// It is the generic cell rate algorithm (ITU-T I.371), a token bucket whose
// state is one instant. With a Burst of 64 or more, a call takes up to a
// thirty-second part of it at once, while so many places are free, and leaves them
// to calls that follow, which then need no clock. That makes the limit no higher,
// at any time: a place taken in advance is used before anyone waits or is turned
// away, but does not come back in a quiet time.
type RateLimiter struct {
	pace     atomic.Pointer[pace]
	rejected atomic.Int64
}

// pace is the instant, and the settings it goes by.
type pace struct {
	cfg      RateLimiterConfig
	interval int64 // between calls
	slack    int64 // how far ahead of the calls the instant may be
	pocket   pocket
	free     atomic.Int64
	_        apart
}

// moved is the instant of a pace that has a successor.
const moved = math.MaxInt64

// RateLimiterStats counts what a RateLimiter has done since it was made.
type RateLimiterStats struct {
	Rejected int64
}

// NewRateLimiter returns a policy, or all that is wrong with cfg.
func NewRateLimiter(cfg RateLimiterConfig) (*RateLimiter, error) {
	cfg.Per, cfg.Burst = orDefault(cfg.Per, time.Second), orDefault(cfg.Burst, 1)
	c := checking("rate limiter", cfg.Name)
	c.that(cfg.Calls >= 1, "Calls must be at least 1, got %d", cfg.Calls)
	c.positive("Per", cfg.Per)
	c.that(cfg.Burst >= 1, "Burst must be at least 1, got %d", cfg.Burst)
	notNegative(c, "MaxWait", cfg.MaxWait)
	if err := c.err(); err != nil {
		return nil, err
	}
	p := &pace{cfg: cfg, interval: int64(cfg.Per) / int64(cfg.Calls)}
	c.that(p.interval >= 1, "%d calls in %v are more than one per nanosecond", cfg.Calls, cfg.Per)
	c.that(int64(cfg.Burst) <= int64(1<<62)/max(1, p.interval), "Burst of %d is longer than a century", cfg.Burst)
	p.pocket.size = pocketOf(cfg.Burst)
	p.pocket.fill(p.pocket.size)
	p.slack = (int64(cfg.Burst-1) - p.pocket.size) * p.interval
	if err := c.err(); err != nil {
		return nil, err
	}
	l := &RateLimiter{}
	l.pace.Store(p)
	return l, nil
}

// Do calls fn when there is room.
func (l *RateLimiter) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	if l.pace.Load().pocket.take() || l.reserve(now(), 0) == 0 {
		return fn(ctx)
	}
	return l.wait(ctx, call{target: function(fn)})
}

func (l *RateLimiter) do(ctx context.Context, c call) error {
	if l.pace.Load().pocket.take() || l.reserve(c.clock(), 0) == 0 {
		return c.run(ctx)
	}
	return l.wait(ctx, c)
}

// wait makes the call later, or turns it away.
func (l *RateLimiter) wait(ctx context.Context, c call) error {
	if err := ended(ctx); err != nil {
		return l.gone(err)
	}
	most := l.pace.Load().cfg.MaxWait
	if deadline, ok := ctx.Deadline(); ok {
		most = min(most, max(0, time.Until(deadline)))
	}
	wait := time.Duration(l.reserve(now(), int64(most))) // the time of entry may be long past, and others came since
	if wait > most {
		return l.reject(wait)
	}
	if wait > 0 {
		if err := sleep(ctx, wait); err != nil {
			return l.gone(err)
		}
	}
	c.again()
	return c.run(ctx)
}

// gone is the error of a caller that waits no longer.
func (l *RateLimiter) gone(cause error) error {
	return &waitError{policy: "rate limiter" + quoted(l.pace.Load().cfg.Name), cause: cause}
}

// reserve takes a place and returns how long it is until then. A place that is
// further away than most is not taken.
func (l *RateLimiter) reserve(now, most int64) int64 {
	for {
		p := l.pace.Load()
		if p.pocket.take() {
			return 0
		}
		free := p.free.Load()
		if free == moved { // and the successor is about to be there
			runtime.Gosched()
			continue
		}
		wait := max(0, free-p.slack-now)
		if wait > most {
			return wait
		}
		if p.charge(free, now) {
			return wait
		}
	}
}

// charge takes a place, and those for the pocket if they are free.
func (p *pace) charge(free, now int64) bool {
	places := int64(0)
	fill := free+p.pocket.size*p.interval-p.slack <= now && p.pocket.open()
	if fill {
		places = p.pocket.size
	}
	charged := p.free.CompareAndSwap(free, max(free, now)+(1+places)*p.interval)
	if fill {
		if !charged {
			places = 0
		}
		p.pocket.fill(places)
	}
	return charged
}

func (l *RateLimiter) reject(wait time.Duration) error {
	l.rejected.Add(1)
	cfg := &l.pace.Load().cfg
	err := &RejectedError{Policy: cfg.Name, Reason: ErrRateLimited, After: wait}
	cfg.Observer.tell(Event{Kind: EventRejected, Policy: cfg.Name, Type: "rate limiter", Err: err})
	return err
}

// Stats returns what the policy has done.
func (l *RateLimiter) Stats() RateLimiterStats { return RateLimiterStats{Rejected: l.rejected.Load()} }

func (l *RateLimiter) describe() Description {
	cfg := &l.pace.Load().cfg
	s := fmt.Sprintf("%d per %v, bursts of %d", cfg.Calls, cfg.Per, cfg.Burst)
	if cfg.MaxWait > 0 {
		s += fmt.Sprintf(", waiting up to %v", cfg.MaxWait)
	}
	return Description{Kind: "rate limiter", Name: cfg.Name, Settings: s}
}
