package resilience

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// State is what a circuit breaker does with calls.
type State int

// The states of a circuit breaker.
const (
	Closed   State = iota // calls pass, and are counted
	Open                  // calls are turned away
	HalfOpen              // a few calls pass, to see whether they go well
	Isolated              // calls are turned away until someone closes it
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half-open"
	case Isolated:
		return "isolated"
	}
	return fmt.Sprintf("state %d", int(s))
}

// CircuitBreakerConfig configures a CircuitBreaker. The zero value opens after
// five failures in a row, for ten seconds.
type CircuitBreakerConfig struct {
	Name string // in errors, events and metrics

	// Failures is how many bad calls in a row open the breaker. It is for breakers
	// without a window, whose calls are few. Defaults to 5.
	Failures int
	// WindowCalls makes the breaker look at the last so many calls; at most one
	// million.
	WindowCalls int
	// WindowPeriod makes it look at the calls of the last so long, in steps of a
	// tenth. At most one of WindowCalls and WindowPeriod may be set.
	WindowPeriod time.Duration
	// FailureRate is the share of failures in the window, from 0 to 1, that opens
	// the breaker. Defaults to 0.5, or to none when SlowRate is set.
	FailureRate float64
	// SlowCall is how long a call takes that counts as slow; it needs a window.
	// Without SlowRate it is half of them that open the breaker.
	SlowCall time.Duration
	// SlowRate is the share of slow calls in the window, from 0 to 1, that opens
	// the breaker.
	SlowRate float64
	// MinCalls is how many calls the window must have for a rate to count.
	// Defaults to 20, or WindowCalls if that is less.
	MinCalls int

	// OpenFor is how long the breaker stays open before it tries calls again.
	// Defaults to 10 s.
	OpenFor time.Duration
	// Probes is how many calls in half-open state must go well for the breaker to
	// close; no more are let through. One that fails opens it again. Defaults to 1.
	Probes int

	// If says which errors are failures. Defaults to those that Classify finds
	// Transient or Throttled: the other side has answered a call with a Permanent
	// one. Of the others, a Cancelled call, or one that a policy within turned away,
	// is not counted at all.
	If func(err error) bool
	// Observer is told about EventStateChange and EventRejected.
	Observer Observer
}

// CircuitBreaker turns calls away while most of them fail, so that callers don't
// wait for what will not come, and what is overloaded can recover.
//
// In closed state it counts calls, and opens when the last failures in a row, or
// the rate of failures or slow calls in a window, exceed the limit; that is
// looked at after each bad call. When it has been open for OpenFor the next call
// puts it half-open: it and up to Probes in all are let through. If one fails
// or is slow, the breaker opens again; when all went well, it closes with an
// empty window. Probes that have not come back after OpenFor are no longer
// waited for. A call that panics has failed; the outcome of a call that began in
// another state than the breaker is in is not counted.
//
// A call that goes well takes no lock, and reads the clock only for SlowCall
// (twice) and WindowPeriod (once, and not at all while there are many calls). Of
// many calls that an open breaker turns away few read it.
type CircuitBreaker struct {
	period atomic.Pointer[period]
	_      apart
	stats  struct{ rejected, opened atomic.Int64 }
}

// period is one stay of a breaker in a state, with the same settings.
type period struct {
	cfg      *CircuitBreakerConfig
	state    State
	window   window       // closed
	inARow   *consecutive // the window, if it is that
	end      int64        // open: probes from then on; half-open: the probes have had their time
	early    spell        // before the end, while many calls are turned away
	refusal  *OpenError
	admitted atomic.Int32 // half-open: probes under way or done
	passed   atomic.Int32 // probes that went well
}

// CircuitBreakerStats counts what a CircuitBreaker has done since it was made.
type CircuitBreakerStats struct {
	State    State
	Opened   int64 // how often it opened
	Rejected int64 // calls turned away
}

// NewCircuitBreaker returns a closed breaker, or all that is wrong with cfg.
func NewCircuitBreaker(cfg CircuitBreakerConfig) (*CircuitBreaker, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	b := &CircuitBreaker{}
	b.period.Store(cfg.closed())
	return b, nil
}

func (cfg CircuitBreakerConfig) complete() (CircuitBreakerConfig, error) {
	c := checking("circuit breaker", cfg.Name)
	windowed := cfg.WindowCalls > 0 || cfg.WindowPeriod > 0
	c.that(!windowed || cfg.Failures == 0, "Failures counts calls in a row and needs no window; set one of Failures, WindowCalls and WindowPeriod")
	c.that(cfg.WindowCalls == 0 || cfg.WindowPeriod == 0, "only one of WindowCalls and WindowPeriod may be set")
	c.that(windowed || cfg.FailureRate == 0 && cfg.SlowCall == 0 && cfg.SlowRate == 0 && cfg.MinCalls == 0, "FailureRate, SlowCall, SlowRate and MinCalls need WindowCalls or WindowPeriod")
	c.that(cfg.SlowRate == 0 || cfg.SlowCall > 0, "SlowRate needs SlowCall, the time from which on a call is slow")
	if windowed {
		if cfg.SlowRate == 0 {
			cfg.FailureRate = orDefault(cfg.FailureRate, 0.5)
		}
		if cfg.SlowCall > 0 {
			cfg.SlowRate = orDefault(cfg.SlowRate, 0.5)
		}
		cfg.MinCalls = orDefault(cfg.MinCalls, 20)
		if cfg.WindowCalls > 0 {
			cfg.MinCalls = min(cfg.MinCalls, cfg.WindowCalls)
		}
	} else {
		cfg.Failures = orDefault(cfg.Failures, 5)
	}
	cfg.OpenFor = orDefault(cfg.OpenFor, 10*time.Second)
	cfg.Probes = orDefault(cfg.Probes, 1)
	if cfg.If == nil {
		cfg.If = isFailure
	}
	c.that(cfg.Failures >= 0 && cfg.Failures <= 1e9, "Failures must be from 1 to 1e9, got %d", cfg.Failures)
	c.that(cfg.WindowCalls >= 0 && cfg.WindowCalls <= 1e6, "WindowCalls must be from 1 to 1e6, got %d", cfg.WindowCalls)
	c.that(cfg.WindowPeriod == 0 || cfg.WindowPeriod >= 10*time.Millisecond, "WindowPeriod must be at least 10ms, got %v", cfg.WindowPeriod)
	c.that(cfg.FailureRate >= 0 && cfg.FailureRate <= 1, "FailureRate must be from 0 to 1, got %v", cfg.FailureRate)
	c.that(cfg.SlowRate >= 0 && cfg.SlowRate <= 1, "SlowRate must be from 0 to 1, got %v", cfg.SlowRate)
	notNegative(c, "SlowCall", cfg.SlowCall)
	notNegative(c, "MinCalls", cfg.MinCalls)
	c.positive("OpenFor", cfg.OpenFor)
	c.that(cfg.Probes >= 1 && cfg.Probes <= 1e6, "Probes must be from 1 to 1e6, got %d", cfg.Probes)
	return cfg, c.err()
}

// Do calls fn unless the breaker is open.
func (b *CircuitBreaker) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	p := b.period.Load()
	if p.state != Closed || p.cfg.SlowCall > 0 {
		return b.do(ctx, call{target: function(fn)})
	}
	returned := false // do in short, since passing a call on takes longer than all that it does
	defer func() {
		if !returned {
			b.count(p, 0, failed)
		}
	}()
	err := fn(ctx)
	returned = true
	switch {
	case err != nil:
		b.finish(p, 0, err)
	case p.inARow != nil:
		p.inARow.good(0)
	default:
		p.window.good(0)
	}
	return err
}

func (b *CircuitBreaker) do(ctx context.Context, c call) (err error) {
	p := b.period.Load()
	if p.state != Closed {
		if p, err = b.admit(p); err != nil {
			return err
		}
	}
	if p.cfg.SlowCall > 0 {
		c.clock()
	}
	returned := false
	defer func() {
		if !returned {
			b.count(p, c.now, failed)
		}
	}()
	err = c.run(ctx)
	returned = true
	switch {
	case err == nil && p.inARow != nil:
		p.inARow.good(0)
	case err == nil && p.state == Closed && p.cfg.SlowCall == 0:
		p.window.good(0)
	default:
		b.finish(p, c.now, err)
	}
	return err
}

// finish counts a call that was let through.
func (b *CircuitBreaker) finish(p *period, begun int64, err error) {
	var o outcome
	if err != nil && p.cfg.If(err) {
		o = failed
	} else if err != nil && isIgnored(err) {
		if p.state == HalfOpen {
			p.admitted.Add(-1)
		}
		return
	}
	b.count(p, begun, o)
}

func (b *CircuitBreaker) count(p *period, begun int64, o outcome) {
	var at int64
	if p.cfg.SlowCall > 0 {
		if at = now(); at-begun >= int64(p.cfg.SlowCall) {
			o |= slow
		}
	}
	switch {
	case b.period.Load() != p:
	case p.state == HalfOpen && o != 0:
		b.change(p, p.cfg.open())
	case p.state == HalfOpen:
		if p.passed.Add(1) == int32(p.cfg.Probes) {
			b.change(p, p.cfg.closed())
		}
	case o == 0:
		p.window.good(at)
	default:
		if p.window.bad(o, at) {
			b.change(p, p.cfg.open())
		}
	}
}

// admit returns the period that a call belongs to, or an error.
func (b *CircuitBreaker) admit(p *period) (*period, error) {
	for ; ; p = b.period.Load() {
		switch p.state {
		case Closed:
			return p, nil
		case Open:
			if p.over(b.stats.rejected.Load()) {
				b.change(p, p.cfg.halfOpen())
				continue
			}
		case HalfOpen:
			if p.probe(int32(p.cfg.Probes)) {
				return p, nil
			}
			if p.over(b.stats.rejected.Load()) {
				b.change(p, p.cfg.halfOpen())
				continue
			}
		}
		b.stats.rejected.Add(1)
		p.cfg.Observer.tell(Event{Kind: EventRejected, Policy: p.cfg.Name, Type: "circuit breaker", Err: p.refusal})
		return nil, p.refusal
	}
}

// over reports whether the period has come to its end. Of many calls that are
// turned away some ask the clock for all.
func (p *period) over(rejected int64) bool {
	some := rejected%crowd == crowd-1
	if !some && p.early.get() != 0 {
		return false
	}
	left := p.end - now()
	if some {
		p.early.begin(1, left)
	}
	return left <= 0
}

// probe takes one of the places for probes.
func (p *period) probe(places int32) bool {
	for {
		n := p.admitted.Load()
		if n >= places {
			return false
		}
		if p.admitted.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (cfg *CircuitBreakerConfig) closed() *period {
	l := limits{cfg.MinCalls, cfg.FailureRate, cfg.SlowRate}
	p := &period{cfg: cfg, state: Closed}
	switch {
	case cfg.WindowCalls > 0:
		p.window = newLastCalls(cfg.WindowCalls, l)
	case cfg.WindowPeriod > 0:
		p.window = newLastPeriod(cfg.WindowPeriod, l)
	default:
		p.inARow = &consecutive{most: int32(cfg.Failures)}
		p.window = p.inARow
	}
	return p
}

func (cfg *CircuitBreakerConfig) open() *period { return cfg.openUntil(now() + int64(cfg.OpenFor)) }

func (cfg *CircuitBreakerConfig) openUntil(end int64) *period {
	return &period{cfg: cfg, state: Open, end: end, refusal: &OpenError{Breaker: cfg.Name, State: Open, retry: end}}
}

// halfOpen turns further calls away for a tenth of OpenFor: that a probe comes
// back in time is likely, but not known.
func (cfg *CircuitBreakerConfig) halfOpen() *period {
	e := &OpenError{Breaker: cfg.Name, State: HalfOpen, probing: max(cfg.OpenFor/10, time.Millisecond)}
	return &period{cfg: cfg, state: HalfOpen, end: now() + int64(cfg.OpenFor), refusal: e}
}

func (cfg *CircuitBreakerConfig) isolated() *period {
	return &period{cfg: cfg, state: Isolated, refusal: &OpenError{Breaker: cfg.Name, State: Isolated, probing: time.Second}}
}

// change moves from one period to the next, unless somebody was faster.
func (b *CircuitBreaker) change(from, to *period) bool {
	if !b.period.CompareAndSwap(from, to) {
		return false
	}
	if to.state == Open {
		b.stats.opened.Add(1)
	}
	if from.state != to.state {
		to.cfg.Observer.tell(Event{Kind: EventStateChange, Policy: to.cfg.Name, Type: "circuit breaker", From: from.state, To: to.state})
	}
	return true
}

// Isolate turns all calls away until Close is called.
func (b *CircuitBreaker) Isolate() { b.force((*CircuitBreakerConfig).isolated) }

// Close lets calls through, with an empty window.
func (b *CircuitBreaker) Close() { b.force((*CircuitBreakerConfig).closed) }

func (b *CircuitBreaker) force(to func(*CircuitBreakerConfig) *period) {
	for {
		if p := b.period.Load(); b.change(p, to(p.cfg)) {
			return
		}
	}
}

// State returns what the breaker does with calls. An open one becomes half-open
// by the first call after OpenFor.
func (b *CircuitBreaker) State() State { return b.period.Load().state }

// Stats returns the state and what the breaker has done.
func (b *CircuitBreaker) Stats() CircuitBreakerStats {
	return CircuitBreakerStats{State: b.State(), Opened: b.stats.opened.Load(), Rejected: b.stats.rejected.Load()}
}

func (b *CircuitBreaker) describe() Description {
	cfg := b.period.Load().cfg
	return Description{Kind: "circuit breaker", Name: cfg.Name, Settings: cfg.settings()}
}

func (cfg *CircuitBreakerConfig) settings() string {
	var opens []string
	if cfg.Failures > 0 {
		opens = append(opens, fmt.Sprintf("%d failures in a row", cfg.Failures))
	}
	if cfg.FailureRate > 0 {
		opens = append(opens, fmt.Sprintf("%.6g%% failures", 100*cfg.FailureRate))
	}
	if cfg.SlowRate > 0 {
		opens = append(opens, fmt.Sprintf("%.6g%% over %v", 100*cfg.SlowRate, cfg.SlowCall))
	}
	s := strings.Join(opens, " or ")
	switch {
	case cfg.WindowCalls > 0:
		s += fmt.Sprintf(" of the last %d calls, at least %d", cfg.WindowCalls, cfg.MinCalls)
	case cfg.WindowPeriod > 0:
		s += fmt.Sprintf(" of the last %v, at least %d calls", cfg.WindowPeriod, cfg.MinCalls)
	}
	return fmt.Sprintf("%s, open for %v, %d probes", s, cfg.OpenFor, cfg.Probes)
}
