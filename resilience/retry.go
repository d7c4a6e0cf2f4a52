package resilience

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/millrace-go/millrace/internal/failure"
	"github.com/millrace-go/millrace/internal/hop"
)

// RetryConfig configures a Retry. The zero value is safe: three attempts, with
// growing and random pauses, within a budget of a fifth of the traffic.
type RetryConfig struct {
	Name string // in errors, events and metrics

	// Attempts is how often the function is called at most. Defaults to 3.
	Attempts int
	// MaxElapsed bounds when the last attempt begins, counted from the first. An
	// attempt that is running is not cut short; that is a Timeout's work. Defaults
	// to no bound.
	MaxElapsed time.Duration
	// Backoff is the pauses between attempts.
	Backoff Backoff
	// MaxRetryAfter is the longest pause that an error may ask for by RetryAfter;
	// for a longer one the call fails at once, with that error, for the caller to
	// decide. A shorter one than the backoff's has no effect. Defaults to 5 s, so
	// that callers don't wait for a circuit breaker that has just opened.
	MaxRetryAfter time.Duration
	// Budget bounds retries by the traffic. Defaults to one of its own, see
	// NewBudget; Unlimited turns it off.
	Budget *Budget
	// If says which errors are tried again. Defaults to those that Classify finds
	// Transient or Throttled. Errors with a method Repeatable() bool that returns
	// false are never: the call must not be made twice.
	If func(err error) bool
	// Nested makes it retry calls that are themselves retries of a caller, see
	// PreviousAttempts. By default they get one attempt, so that retries along a
	// chain of services add up instead of multiplying.
	Nested bool
	// Random returns numbers in [0, 1), for tests that want the same pauses each
	// time. It must be safe for concurrent use. Defaults to rand.Float64.
	Random func() float64
	// Observer is told about EventRetry and EventGaveUp.
	Observer Observer
}

// Retry calls a function again when it fails.
//
// It stops, with a *RetryError around the last error, when the attempts or the
// budget are used up, when the next attempt would begin after MaxElapsed or the
// deadline of the context, or when the context ends. An error at the first
// attempt that is not to be tried again is returned as it is.
type Retry struct {
	cfg   RetryConfig
	stats *retryStats // shared with successors
}

type retryStats struct{ retries, gaveUp, refused atomic.Int64 }

// RetryStats counts what a Retry has done since it was made.
type RetryStats struct {
	Retries int64 // attempts beyond the first
	GaveUp  int64 // calls that ended with a *RetryError
	Refused int64 // of these, because the budget was used up
}

// NewRetry returns a policy, or all that is wrong with cfg.
func NewRetry(cfg RetryConfig) (*Retry, error) {
	cfg.Attempts = orDefault(cfg.Attempts, 3)
	cfg.Backoff = cfg.Backoff.withDefaults()
	cfg.MaxRetryAfter = orDefault(cfg.MaxRetryAfter, 5*time.Second)
	if cfg.Budget == nil {
		cfg.Budget = Must(NewBudget(BudgetConfig{}))
	}
	if cfg.If == nil {
		cfg.If = isRetryable
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	c := checking("retry", cfg.Name)
	c.that(cfg.Attempts >= 1, "Attempts must be at least 1, got %d", cfg.Attempts)
	notNegative(c, "MaxElapsed", cfg.MaxElapsed)
	notNegative(c, "MaxRetryAfter", cfg.MaxRetryAfter)
	cfg.Backoff.validate(c)
	if err := c.err(); err != nil {
		return nil, err
	}
	return &Retry{cfg: cfg, stats: new(retryStats)}, nil
}

// Do calls fn until it succeeds or there is a reason to stop.
func (r *Retry) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	if r.cfg.MaxElapsed > 0 {
		return r.do(ctx, call{target: function(fn)})
	}
	r.cfg.Budget.earn() // do in short, since passing a call on takes longer than all that it does
	if err := fn(ctx); err != nil {
		return r.retry(ctx, call{target: function(fn)}, err)
	}
	return nil
}

func (r *Retry) do(ctx context.Context, c call) error {
	c.pay(r.cfg.Budget)
	if r.cfg.MaxElapsed > 0 {
		c.clock()
	}
	err := c.run(ctx)
	if err == nil {
		return nil
	}
	return r.retry(ctx, c, err)
}

// retry goes on after a failed first attempt.
func (r *Retry) retry(ctx context.Context, c call, err error) error {
	begun, previous := c.now, hop.Previous(ctx)
	rejected := IsRejected(err)
	var pause time.Duration
	for attempt := 1; ; attempt++ {
		if final := r.final(err); final != "" {
			if attempt == 1 {
				return err
			}
			return r.giveUp(&RetryError{Attempts: attempt, Reason: final, Err: err, rejected: rejected})
		}
		var stop string
		var cause error
		if ctx.Err() != nil {
			stop, cause = "the context has ended", ended(ctx)
		} else if pause, stop = r.next(ctx, attempt, previous, begun, pause, err); stop == "" {
			r.cfg.Observer.tell(Event{Kind: EventRetry, Policy: r.cfg.Name, Type: "retry", Attempt: attempt, Delay: pause, Err: err})
			if cause = sleep(ctx, pause); cause != nil {
				r.cfg.Budget.refund()
				stop = "the context ended during the pause"
			}
		}
		if stop != "" {
			return r.giveUp(&RetryError{Attempts: attempt, Reason: stop, Cause: cause, Err: err, rejected: rejected})
		}
		r.stats.retries.Add(1)
		c.again()
		if err = c.run(hop.With(ctx, previous+attempt)); err == nil {
			return nil
		}
		rejected = rejected && IsRejected(err)
	}
}

// final returns why an error is not one to try again, if so.
func (r *Retry) final(err error) string {
	switch {
	case !failure.IsRepeatable(err):
		return "the call must not be made twice"
	case !r.cfg.If(err):
		return "the error is not one to try again"
	}
	return ""
}

// next returns the pause before the next attempt, or why there is none. If there
// is one, it is paid for.
func (r *Retry) next(ctx context.Context, attempt, previous int, begun int64, last time.Duration, err error) (time.Duration, string) {
	if attempt >= r.cfg.Attempts {
		return 0, "that is all"
	}
	if previous > 0 && !r.cfg.Nested {
		return 0, "the call is itself a retry"
	}
	pause := r.cfg.Backoff.pause(attempt, last, r.cfg.Random)
	if after, asked := RetryAfter(err); asked {
		if after > r.cfg.MaxRetryAfter {
			return 0, fmt.Sprintf("the error asks for a pause of %v", after)
		}
		pause = max(pause, r.cfg.Backoff.notBefore(after, r.cfg.Random))
	}
	if r.cfg.MaxElapsed > 0 && now()-begun+int64(pause) > int64(r.cfg.MaxElapsed) {
		return 0, fmt.Sprintf("the next would begin after %v", r.cfg.MaxElapsed)
	}
	if endsBefore(ctx, pause) {
		return 0, "the context would end before the next"
	}
	if !r.cfg.Budget.spend() {
		r.stats.refused.Add(1)
		return 0, "the retry budget is used up"
	}
	return pause, ""
}

func (r *Retry) giveUp(err *RetryError) error {
	err.Policy = r.cfg.Name
	r.stats.gaveUp.Add(1)
	r.cfg.Observer.tell(Event{Kind: EventGaveUp, Policy: r.cfg.Name, Type: "retry", Attempt: err.Attempts, Err: err})
	return err
}

// Stats returns what the policy has done.
func (r *Retry) Stats() RetryStats {
	return RetryStats{Retries: r.stats.retries.Load(), GaveUp: r.stats.gaveUp.Load(), Refused: r.stats.refused.Load()}
}

func (r *Retry) describe() Description {
	s := fmt.Sprintf("%d attempts, %v, budget %v", r.cfg.Attempts, r.cfg.Backoff, r.cfg.Budget)
	if r.cfg.MaxElapsed > 0 {
		s += fmt.Sprintf(", within %v", r.cfg.MaxElapsed)
	}
	return Description{Kind: "retry", Name: r.cfg.Name, Settings: s}
}
