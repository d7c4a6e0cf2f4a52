package resilience

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// HedgeConfig configures a Hedge.
type HedgeConfig struct {
	Name string // in errors, events and metrics

	// After is how long an attempt may take before another one begins beside it.
	// It is required; with Quantile it is where the estimate begins.
	After time.Duration
	// Quantile makes the time follow what calls take: 0.95 hedges the slowest
	// twentieth of them. It must be from 0.5 to 0.999.
	Quantile float64
	// Attempts is how many attempts of a call there are at most. Defaults to 2.
	Attempts int
	// Budget bounds the additional attempts by the traffic. Defaults to one of its
	// own with a ratio of 0.1.
	Budget *Budget
	// Observer is told about EventHedged.
	Observer Observer
}

// Hedge begins a second attempt when the first is slow, and takes what comes
// first: a success, or an error that Classify finds Permanent. The others'
// contexts end, with cause ErrHedgeLost, and Do waits for them: no attempt
// outlives the call. A Transient error counts when no other attempt is under
// way. It is for functions that may be called twice at a time, and is worth it
// where a few calls are much slower than most.
type Hedge struct {
	cfg   HedgeConfig
	after atomic.Int64 // in nanoseconds
	stats *hedgeStats  // shared with successors
}

type hedgeStats struct{ hedged, won atomic.Int64 }

// ErrHedgeLost is the cause of the end of the context of an attempt that came
// too late: another one has answered. It is Cancelled.
var ErrHedgeLost = fmt.Errorf("another attempt of the call has answered: %w", context.Canceled)

// HedgeStats counts what a Hedge has done since it was made.
type HedgeStats struct {
	Hedged int64         // additional attempts
	Won    int64         // of these, whose answer counted
	After  time.Duration // the time now, which Quantile moves
}

// NewHedge returns a policy, or all that is wrong with cfg.
func NewHedge(cfg HedgeConfig) (*Hedge, error) {
	cfg.Attempts = orDefault(cfg.Attempts, 2)
	if cfg.Budget == nil {
		cfg.Budget = Must(NewBudget(BudgetConfig{Ratio: hedgeRatio}))
	}
	c := checking("hedge", cfg.Name)
	c.positive("After", cfg.After)
	c.that(cfg.Quantile == 0 || cfg.Quantile >= 0.5 && cfg.Quantile <= 0.999, "Quantile must be from 0.5 to 0.999, got %v", cfg.Quantile)
	c.that(cfg.Attempts >= 2 && cfg.Attempts <= 100, "Attempts must be from 2 to 100, got %d", cfg.Attempts)
	if err := c.err(); err != nil {
		return nil, err
	}
	h := &Hedge{cfg: cfg, stats: new(hedgeStats)}
	h.after.Store(int64(cfg.After))
	return h, nil
}

// Do calls fn, and again beside it when it is slow.
func (h *Hedge) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	return h.do(ctx, call{target: function(fn)})
}

func (h *Hedge) do(ctx context.Context, c call) error {
	c.pay(h.cfg.Budget)
	if h.cfg.Quantile > 0 {
		begun := c.clock()
		defer func() { h.learn(now() - begun) }()
	}
	r := &race{hedge: h, call: c, begun: 1, running: 1}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(context.Canceled)
	return r.run()
}

// race is the attempts of one call. The first runs in the caller's goroutine,
// the others in those of their timers.
type race struct {
	hedge  *Hedge
	call   call
	ctx    context.Context
	cancel context.CancelCauseFunc

	others sync.WaitGroup // the timer, or the goroutines that timers have begun

	mu      sync.Mutex
	timer   *time.Timer
	begun   int
	running int
	decided bool
	winner  target
	err     error
	panics  any
}

// arm sets the timer of the next attempt. It is called with the lock held.
func (r *race) arm() {
	r.others.Add(1)
	r.timer = time.AfterFunc(time.Duration(r.hedge.after.Load()), r.hedgeAttempt)
}

// hedgeAttempt is called by the timer.
func (r *race) hedgeAttempt() {
	defer r.others.Done()
	if n := r.next(); n > 0 {
		r.hedge.stats.hedged.Add(1)
		r.attempt(n)
	}
}

// next returns the number of the attempt to begin, or 0.
func (r *race) next() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.decided || r.ctx.Err() != nil || !r.hedge.cfg.Budget.spend() {
		return 0
	}
	r.begun++
	r.running++
	if r.begun < r.hedge.cfg.Attempts {
		r.arm()
	}
	return r.begun
}

func (r *race) attempt(n int) {
	t, err, returned := r.call.target.Fork(), error(nil), false
	defer func() {
		if !returned {
			err = errAborted
			if n > 1 {
				r.panicked(recover())
			}
		}
		r.result(n, t, err, returned)
	}()
	if n > 1 {
		r.hedge.cfg.Observer.tell(Event{Kind: EventHedged, Policy: r.hedge.cfg.Name, Type: "hedge", Attempt: n})
	}
	c := r.call
	c.again()
	c.target = t
	err = c.run(r.ctx)
	returned = true
}

// errAborted stands for the result of a function that did not return.
var errAborted = errors.New("resilience: hedge: the function panicked or called runtime.Goexit")

// panicked keeps what a hedged attempt panicked with, for the caller.
func (r *race) panicked(v any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.panics = v
}

// result takes what came of an attempt. One that did not return settles the call.
func (r *race) result(n int, t target, err error, returned bool) {
	settles := !returned || err == nil || Classify(err) == Permanent
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running--
	if r.decided || !settles && r.running > 0 {
		return
	}
	r.winner, r.err = t, err
	r.decided = true
	if r.timer.Stop() {
		r.others.Done()
	}
	r.cancel(ErrHedgeLost)
	if n > 1 && settles {
		r.hedge.stats.won.Add(1)
	}
}

// run makes the first attempt and returns the result when no attempt is running
// any more.
func (r *race) run() error {
	func() {
		r.mu.Lock()
		r.arm()
		r.mu.Unlock()
		defer r.others.Wait()
		r.attempt(1)
	}()
	if r.panics != nil {
		panic(r.panics)
	}
	r.call.target.Join(r.winner)
	return r.err
}

// learn moves the estimate of the quantile by a call that took d: up by the
// quantile, or down by the rest, of a hundredth. See Ma, Muthukrishnan and
// Sandler, "Frugal Streaming for Estimating Quantiles" (2013).
func (h *Hedge) learn(d int64) {
	after := h.after.Load()
	step := math.Max(1, float64(after)/100)
	if d > after {
		step *= h.cfg.Quantile
	} else {
		step *= h.cfg.Quantile - 1
	}
	h.after.CompareAndSwap(after, max(int64(time.Microsecond), after+int64(step)))
}

// Stats returns what the policy has done.
func (h *Hedge) Stats() HedgeStats {
	return HedgeStats{Hedged: h.stats.hedged.Load(), Won: h.stats.won.Load(), After: time.Duration(h.after.Load())}
}

func (h *Hedge) describe() Description {
	s := fmt.Sprintf("%d attempts, %v apart, budget %v", h.cfg.Attempts, h.cfg.After, h.cfg.Budget)
	if h.cfg.Quantile > 0 {
		s += fmt.Sprintf(", following the %g quantile", h.cfg.Quantile)
	}
	return Description{Kind: "hedge", Name: h.cfg.Name, Settings: s}
}
