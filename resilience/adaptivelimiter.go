package resilience

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// AdaptiveLimiterConfig configures an AdaptiveLimiter. The zero value finds a
// limit between 1 and 1,000, beginning with 20.
type AdaptiveLimiterConfig struct {
	Name string // in errors, events and metrics

	Min     int // lowest limit. Defaults to 1
	Max     int // highest limit. Defaults to 1,000
	Initial int // limit at the start. Defaults to 20, within Min and Max
	// Tolerance is how much longer than usual calls may take before the limit goes
	// down, as a factor of at least 1. Defaults to 1.5.
	Tolerance float64
	// Window is how often the limit is looked at, if there were ten calls.
	// Defaults to 100 ms.
	Window time.Duration
	// If says which errors mean that the other side is overloaded: the limit goes
	// down. Defaults to those that Classify finds Throttled, and timeouts.
	If func(err error) bool
	// Observer is told about EventRejected.
	Observer Observer
}

// AdaptiveLimiter bounds how many calls there are at a time by a limit that it
// finds itself: while calls take as long as usual the limit grows, when they
// take longer they queue somewhere and it shrinks. Calls beyond it are turned
// away with ErrOverloaded. On the server's side that sheds load before latency
// grows; on the client's it spares the server.
//
// It is the Gradient2 algorithm of Netflix
// (https://github.com/Netflix/concurrency-limits), on averages of windows, but
// for one thing: what is usual is not learned from calls that wait, or the limit
// would grow all through an overload. Instead, once in a hundred windows of it, a
// quarter of the limit has to do for two, which shows what calls take when none
// waits: the minRTT of Envoy's adaptive concurrency filter.
type AdaptiveLimiter struct {
	cfg      atomic.Pointer[AdaptiveLimiterConfig]
	limit    atomic.Int64
	running  atomic.Int64
	rejected atomic.Int64

	calls, total, overloads, peak atomic.Int64 // of the window
	next                          atomic.Int64 // when the window ends

	updating atomic.Bool // owns what follows
	exact    float64
	usual    float64 // long-term average of what calls take, in nanoseconds
	before   int64   // calls turned away before the window
	held     int     // windows that the limit was held down since the usual was seen
	measure  int     // windows that are left of a measurement
}

// AdaptiveLimiterStats is what an AdaptiveLimiter is doing and has done since it
// was made.
type AdaptiveLimiterStats struct {
	Limit    int
	Running  int
	Rejected int64
}

// NewAdaptiveLimiter returns a policy, or all that is wrong with cfg.
func NewAdaptiveLimiter(cfg AdaptiveLimiterConfig) (*AdaptiveLimiter, error) {
	cfg.Min, cfg.Max = orDefault(cfg.Min, 1), orDefault(cfg.Max, 1000)
	if cfg.Initial == 0 {
		cfg.Initial = min(max(20, cfg.Min), cfg.Max)
	}
	cfg.Tolerance = orDefault(cfg.Tolerance, 1.5)
	cfg.Window = orDefault(cfg.Window, 100*time.Millisecond)
	if cfg.If == nil {
		cfg.If = isOverload
	}
	c := checking("adaptive limiter", cfg.Name)
	c.that(cfg.Min >= 1, "Min must be at least 1, got %d", cfg.Min)
	c.that(cfg.Max >= cfg.Min && cfg.Max <= 1e6, "Max must be from Min (%d) to 1e6, got %d", cfg.Min, cfg.Max)
	c.that(cfg.Initial >= cfg.Min && cfg.Initial <= cfg.Max, "Initial must be from Min to Max, got %d", cfg.Initial)
	c.that(cfg.Tolerance >= 1, "Tolerance must be at least 1, got %v", cfg.Tolerance)
	c.positive("Window", cfg.Window)
	if err := c.err(); err != nil {
		return nil, err
	}
	l := &AdaptiveLimiter{exact: float64(cfg.Initial)}
	l.cfg.Store(&cfg)
	l.limit.Store(int64(cfg.Initial))
	return l, nil
}

func isOverload(err error) bool {
	return !IsRejected(err) && (Classify(err) == Throttled || isTimeout(err))
}

// Do calls fn if there is room.
func (l *AdaptiveLimiter) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	return l.do(ctx, call{target: function(fn)})
}

func (l *AdaptiveLimiter) do(ctx context.Context, c call) error {
	if !l.enter() {
		return l.reject()
	}
	defer l.running.Add(-1)
	begun := c.clock()
	err := c.run(ctx)
	l.sample(now(), begun, err)
	return err
}

// enter reports whether there is room for a call.
func (l *AdaptiveLimiter) enter() bool {
	for {
		n := l.running.Load()
		if n >= l.limit.Load() {
			return false
		}
		if l.running.CompareAndSwap(n, n+1) {
			if n+1 > l.peak.Load() {
				l.peak.Store(n + 1)
			}
			return true
		}
	}
}

// sample counts a call, and looks at the limit when the window is over.
func (l *AdaptiveLimiter) sample(now, begun int64, err error) {
	switch {
	case err == nil:
	case l.cfg.Load().If(err):
		l.overloads.Add(1)
	case isIgnored(err):
		return
	}
	l.total.Add(now - begun)
	if l.calls.Add(1) < minSamples || now < l.next.Load() || !l.updating.CompareAndSwap(false, true) {
		return
	}
	defer l.updating.Store(false)
	l.next.Store(now + int64(l.cfg.Load().Window))
	calls, total, overloads, peak := l.calls.Swap(0), l.total.Swap(0), l.overloads.Swap(0), l.peak.Swap(0)
	if calls > 0 {
		l.update(float64(total)/float64(calls), overloads > 0, float64(peak))
	}
}

const (
	minSamples = 10
	longTerm   = 0.02 // weight of a window in the long-term average
	smoothing  = 0.2  // weight of a window in the limit
	patience   = 100  // windows between measurements
	fewCalls   = 3    // that a measurement lets through at least
)

// update moves the limit by a window whose calls took average.
func (l *AdaptiveLimiter) update(average float64, overloaded bool, peak float64) {
	if l.measure > 0 {
		l.measured(average)
		return
	}
	cfg, limit, rejected := l.cfg.Load(), l.exact, l.rejected.Load()
	full := rejected > l.before || peak >= math.Floor(limit)
	l.before = rejected
	l.learn(average, cfg.Tolerance, full)
	switch {
	case overloaded:
		limit *= 0.9
	case !full && peak < limit/2: // the limit was not what held calls up, so nothing is known
	default:
		gradient := math.Max(0.5, math.Min(1, cfg.Tolerance*l.usual/math.Max(1, average)))
		target := limit*gradient + math.Sqrt(limit)
		limit += smoothing * (target - limit)
	}
	l.exact = math.Max(float64(cfg.Min), math.Min(float64(cfg.Max), limit))
	l.limit.Store(int64(l.exact))
	if l.held >= patience {
		l.held, l.measure = 0, 2
		few := math.Max(fewCalls, l.exact/4)
		l.limit.Store(int64(math.Max(float64(cfg.Min), math.Min(l.exact, few))))
		l.next.Add(int64(2 * average)) // those that wait have to go first
	}
}

// learn adds a window to what is usual, unless calls may have waited in it.
func (l *AdaptiveLimiter) learn(average, tolerance float64, full bool) {
	switch {
	case l.usual == 0:
		l.usual = average
	case average < l.usual || !full:
		l.usual += longTerm * (average - l.usual)
	case average > tolerance*l.usual:
		l.held++
	}
	if !full {
		l.held = 0
	}
}

// measured takes a window of a measurement: the first one has those calls in it
// that still waited, the second is what is usual.
func (l *AdaptiveLimiter) measured(average float64) {
	if l.measure--; l.measure == 0 {
		l.usual = average
		l.limit.Store(int64(l.exact))
	}
}

func (l *AdaptiveLimiter) reject() error {
	l.rejected.Add(1)
	cfg := l.cfg.Load()
	err := &RejectedError{Policy: cfg.Name, Reason: ErrOverloaded}
	cfg.Observer.tell(Event{Kind: EventRejected, Policy: cfg.Name, Type: "adaptive limiter", Err: err})
	return err
}

// Stats returns what the policy is doing and has done.
func (l *AdaptiveLimiter) Stats() AdaptiveLimiterStats {
	return AdaptiveLimiterStats{Limit: int(l.limit.Load()), Running: int(l.running.Load()), Rejected: l.rejected.Load()}
}

func (l *AdaptiveLimiter) describe() Description {
	cfg := l.cfg.Load()
	s := fmt.Sprintf("%d to %d at a time, tolerance %g", cfg.Min, cfg.Max, cfg.Tolerance)
	return Description{Kind: "adaptive limiter", Name: cfg.Name, Settings: s}
}
