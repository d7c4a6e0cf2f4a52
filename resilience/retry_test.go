package resilience

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// plain is pauses of a second each.
var plain = Backoff{Shape: Fixed, Base: time.Second, Jitter: -1}

func TestRetry(t *testing.T) {
	for name, test := range map[string]struct {
		cfg     RetryConfig
		ctx     func(context.Context) (context.Context, context.CancelFunc)
		errs    []error // of the attempts; the last one stays
		calls   int
		elapsed time.Duration
		reason  string // of the *RetryError
		is      []error
		class   Class
	}{
		"succeeds":             {errs: []error{nil}, calls: 1},
		"succeeds at last":     {errs: []error{errDown, errDown, nil}, calls: 3, elapsed: 2 * time.Second},
		"is never tried again": {errs: []error{errPermanent}, calls: 1, is: []error{errPermanent}, class: Permanent},
		"is not tried again": {errs: []error{errDown, errPermanent}, calls: 2, elapsed: time.Second, class: Permanent,
			reason: "the error is not one to try again", is: []error{errPermanent, ErrRetriesExhausted}},
		"is cancelled": {errs: []error{context.Canceled}, calls: 1, is: []error{context.Canceled}, class: Cancelled},
		"uses up its attempts": {errs: []error{errDown}, calls: 3, elapsed: 2 * time.Second, class: Transient,
			reason: "that is all", is: []error{errDown, ErrRetriesExhausted}},
		"has one attempt": {cfg: RetryConfig{Attempts: 1}, errs: []error{errDown}, calls: 1, class: Transient,
			reason: "that is all", is: []error{errDown}},
		"tries again what If says": {cfg: RetryConfig{If: func(err error) bool { return errors.Is(err, errPermanent) }},
			errs: []error{errPermanent, errDown}, calls: 2, elapsed: time.Second, class: Transient,
			reason: "the error is not one to try again", is: []error{errDown}},
		"waits as long as is asked for": {errs: []error{AsThrottled(errDown, 4*time.Second), nil}, calls: 2, elapsed: 4 * time.Second},
		"waits no less than its pause":  {errs: []error{AsThrottled(errDown, time.Millisecond), nil}, calls: 2, elapsed: time.Second},
		"does not wait too long": {errs: []error{AsThrottled(errDown, time.Minute)}, calls: 1, class: Throttled,
			reason: "the error asks for a pause of 1m0s", is: []error{errDown}},
		"waits longer if it may": {cfg: RetryConfig{MaxRetryAfter: time.Hour}, errs: []error{AsThrottled(errDown, time.Minute), nil}, calls: 2, elapsed: time.Minute},
		"ends after MaxElapsed": {cfg: RetryConfig{Attempts: 100, MaxElapsed: 3500 * time.Millisecond}, errs: []error{errDown}, calls: 4, elapsed: 3 * time.Second, class: Transient,
			reason: "the next would begin after 3.5s", is: []error{errDown}},
		"begins an attempt at MaxElapsed": {cfg: RetryConfig{Attempts: 100, MaxElapsed: 3 * time.Second}, errs: []error{errDown}, calls: 4, elapsed: 3 * time.Second, class: Transient,
			reason: "the next would begin after 3s"},
		"does not wait for a deadline": {ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, 1500*time.Millisecond)
		}, errs: []error{errDown}, calls: 2, elapsed: time.Second, class: Transient,
			reason: "the context would end before the next", is: []error{errDown}},
		"ends when its budget does": {cfg: RetryConfig{Attempts: 10, Budget: Must(NewBudget(BudgetConfig{Burst: 2}))}, errs: []error{errDown}, calls: 3, elapsed: 2 * time.Second, class: Transient,
			reason: "the retry budget is used up", is: []error{errDown}},
		"needs no budget": {cfg: RetryConfig{Attempts: 200, Budget: Unlimited()}, errs: []error{errDown}, calls: 200, elapsed: 199 * time.Second, class: Transient,
			reason: "that is all", is: []error{errDown}},
		"leaves a retried call alone": {ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithCancel(WithPreviousAttempts(ctx, 1))
		}, errs: []error{errDown}, calls: 1, class: Transient, reason: "the call is itself a retry", is: []error{errDown}},
		"retries a retried call if it is told to": {cfg: RetryConfig{Nested: true}, ctx: func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithCancel(WithPreviousAttempts(ctx, 1))
		}, errs: []error{errDown, nil}, calls: 2, elapsed: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if test.ctx != nil {
					ctx, cancel = test.ctx(ctx)
				}
				defer cancel()
				var seen events
				test.cfg.Name, test.cfg.Backoff, test.cfg.Observer = "payments", plain, seen.observe
				r, calls, begun := Must(NewRetry(test.cfg)), 0, time.Now()
				previous := PreviousAttempts(ctx)
				err := r.Do(ctx, func(ctx context.Context) error {
					require.Equal(t, previous+calls, PreviousAttempts(ctx))
					calls++
					return test.errs[min(calls, len(test.errs))-1]
				})
				require.Equal(t, test.calls, calls)
				require.Equal(t, test.elapsed, time.Since(begun))
				require.Equal(t, test.class, Classify(err))
				for _, is := range test.is {
					require.ErrorIs(t, err, is)
				}
				requireRetryStory(t, r, err, test.reason, calls, seen.all)
			})
		})
	}
}

// requireRetryStory checks that error, events and numbers say the same.
func requireRetryStory(t *testing.T, r *Retry, err error, reason string, calls int, all []Event) {
	t.Helper()
	want := RetryStats{Retries: int64(calls - 1)}
	for i := range calls - 1 {
		require.Equal(t, EventRetry, all[i].Kind)
		require.Equal(t, i+1, all[i].Attempt)
		require.Positive(t, all[i].Delay)
		require.Error(t, all[i].Err)
	}
	var gaveUp *RetryError
	require.Equal(t, reason != "", errors.As(err, &gaveUp))
	if gaveUp != nil {
		want.GaveUp = 1
		require.Equal(t, reason, gaveUp.Reason)
		require.Equal(t, calls, gaveUp.Attempts)
		require.Contains(t, err.Error(), `resilience: retry "payments": gave up after `)
		require.Equal(t, Event{Kind: EventGaveUp, Policy: "payments", Type: "retry", Attempt: calls, Err: err}, all[len(all)-1])
	}
	if reason == "the retry budget is used up" {
		want.Refused = 1
	}
	require.Equal(t, want, r.Stats())
}

// Three layers of three attempts each would make 27 calls of one that fails.
func TestRetriesAddUpInsteadOfMultiplying(t *testing.T) {
	for nested, want := range map[bool]int{false: 7, true: 27} {
		t.Run(fmt.Sprint("nested ", nested), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				layer := func(next func(context.Context) error) func(context.Context) error {
					r := Must(NewRetry(RetryConfig{Nested: nested}))
					return func(ctx context.Context) error { return r.Do(ctx, next) }
				}
				err := layer(layer(layer(func(context.Context) error {
					calls++
					return errDown
				})))(t.Context())
				require.ErrorIs(t, err, errDown)
				require.Equal(t, want, calls)
			})
		})
	}
}

func TestWithPreviousAttemptsOfNone(t *testing.T) {
	require.Equal(t, t.Context(), WithPreviousAttempts(t.Context(), 0))
	require.Equal(t, t.Context(), WithPreviousAttempts(t.Context(), -1))
	require.Zero(t, PreviousAttempts(t.Context()))
}

func TestRetryErrorIsARejectionOnlyIfTheFunctionNeverRan(t *testing.T) {
	for name, test := range map[string]struct {
		errs []error
		want bool
	}{
		"always turned away":            {[]error{errWithoutTurn}, true},
		"turned away the first time":    {[]error{errWithoutTurn, errDown}, false},
		"turned away the last time":     {[]error{errDown, errWithoutTurn}, false},
		"turned away but in the middle": {[]error{errWithoutTurn, errDown, errWithoutTurn}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				err := Must(NewRetry(RetryConfig{})).Do(t.Context(), func(context.Context) error {
					calls++
					return test.errs[min(calls, len(test.errs))-1]
				})
				require.ErrorIs(t, err, ErrRetriesExhausted)
				require.Equal(t, test.want, IsRejected(err))
			})
		})
	}
}

func TestRetryWaitsForAnOpenBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		breaker := Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1, OpenFor: 5 * time.Second}))
		require.ErrorIs(t, breaker.Do(t.Context(), returning(errDown)), errDown)
		begun := time.Now()
		require.NoError(t, Must(NewPipeline("", Must(NewRetry(RetryConfig{Backoff: plain})), breaker)).Do(t.Context(), returning(nil)))
		require.Equal(t, 5*time.Second, time.Since(begun))
	})
}
