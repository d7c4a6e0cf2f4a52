package resilience

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors that callers may decide on, with errors.Is.
var (
	// ErrOpen is in the chain of errors of calls that a circuit breaker turned
	// away; the error is an *OpenError.
	ErrOpen = errors.New("circuit breaker is open")
	// ErrBulkheadFull is in the chain of errors of calls that a bulkhead turned
	// away; the error is a *RejectedError.
	ErrBulkheadFull = errors.New("bulkhead is full")
	// ErrRateLimited is in the chain of errors of calls that a rate limiter turned
	// away; the error is a *RejectedError with a RetryAfter.
	ErrRateLimited = errors.New("rate limit exceeded")
	// ErrOverloaded is in the chain of errors of calls that an adaptive limiter
	// turned away; the error is a *RejectedError.
	ErrOverloaded = errors.New("concurrency limit reached")
	// ErrTimeout is in the chain of errors of calls that a Timeout ended; the error
	// is a *TimeoutError and context.DeadlineExceeded is in its chain too.
	ErrTimeout = errors.New("timeout exceeded")
	// ErrRetriesExhausted is in the chain of errors of calls that a Retry gave up
	// after more than one attempt or would have tried again; the error is a
	// *RetryError.
	ErrRetriesExhausted = errors.New("gave up retrying")
)

// OpenError is the error of a call that an open or isolated circuit breaker
// turned away.
type OpenError struct {
	Breaker string // the breaker's name
	State   State  // Open, HalfOpen with all probes under way, or Isolated
	retry   int64  // the time when trying again makes sense; 0: unknown
	probing time.Duration
}

// Error names the breaker and, if known, when it will let calls through again.
func (e *OpenError) Error() string {
	s := fmt.Sprintf("resilience: circuit breaker%s is %s", quoted(e.Breaker), e.State)
	if d := e.RetryAfter(); d > 0 {
		s += fmt.Sprintf(", try again in %v", d.Round(time.Millisecond))
	}
	return s
}

// RetryAfter returns how long it will be, from now, until the breaker lets a
// call through to see whether it goes well. It is 0 when that is due. For an
// isolated breaker it is a second, after which someone may have closed it.
func (e *OpenError) RetryAfter() time.Duration {
	if e.probing > 0 {
		return e.probing
	}
	return time.Duration(max(0, e.retry-now()))
}

// Is reports whether target is ErrOpen.
func (e *OpenError) Is(target error) bool { return target == ErrOpen }

// Rejected returns true: the function was not called.
func (e *OpenError) Rejected() bool { return true }

// RejectedError is the error of a call that a bulkhead or a limiter turned away.
type RejectedError struct {
	Policy string        // the policy's name
	Reason error         // ErrBulkheadFull, ErrRateLimited or ErrOverloaded
	After  time.Duration // after which trying again makes sense
}

// Error names the policy and the reason.
func (e *RejectedError) Error() string {
	s := fmt.Sprintf("resilience:%s %v", quoted(e.Policy), e.Reason)
	if e.After > 0 {
		s += fmt.Sprintf(", try again in %v", e.After.Round(time.Microsecond))
	}
	return s
}

// Unwrap returns the reason.
func (e *RejectedError) Unwrap() error { return e.Reason }

// Rejected returns true: the function was not called.
func (e *RejectedError) Rejected() bool { return true }

// RetryAfter returns After.
func (e *RejectedError) RetryAfter() time.Duration { return e.After }

// waitError is the error of a call whose context ended while it waited for its
// turn. It says nothing about the other side: the function was not called.
type waitError struct {
	policy string // kind and name
	cause  error
}

func (e *waitError) Error() string {
	return fmt.Sprintf("resilience: waiting for %s: %v", e.policy, e.cause)
}
func (e *waitError) Unwrap() error  { return e.cause }
func (e *waitError) Rejected() bool { return true }

// TimeoutError is the error of a call whose time was up.
type TimeoutError struct {
	Policy string        // the policy's name
	After  time.Duration // the time it had
	Err    error         // what the function returned, or nil
}

// Error says how long the call had and what came of it.
func (e *TimeoutError) Error() string {
	s := fmt.Sprintf("resilience: timeout%s of %v exceeded", quoted(e.Policy), e.After)
	if e.Err != nil && !errors.Is(e.Err, context.DeadlineExceeded) && !errors.Is(e.Err, context.Canceled) {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns ErrTimeout, context.DeadlineExceeded and the function's error,
// unless that is the end of its context.
func (e *TimeoutError) Unwrap() []error {
	errs := []error{ErrTimeout, context.DeadlineExceeded}
	if e.Err != nil && !errors.Is(e.Err, context.Canceled) {
		errs = append(errs, e.Err)
	}
	return errs
}

// Timeout returns true, as of a net.Error.
func (e *TimeoutError) Timeout() bool { return true }

// RetryError is the error of a call that was, or would have been, tried again
// until there was a reason not to.
type RetryError struct {
	Policy   string // the policy's name
	Attempts int    // calls made
	Reason   string // why no other attempt followed
	Cause    error  // why the context ended, if that is the reason
	Err      error  // of the last attempt

	rejected bool
}

// Error says how often and why no longer, and what the last attempt returned.
func (e *RetryError) Error() string {
	tries := "attempts"
	if e.Attempts == 1 {
		tries = "attempt"
	}
	return fmt.Sprintf("resilience: retry%s: gave up after %d %s (%s): %v", quoted(e.Policy), e.Attempts, tries, e.Reason, e.Err)
}

// Unwrap returns ErrRetriesExhausted, the cause of the context's end, if any,
// and the error of the last attempt.
func (e *RetryError) Unwrap() []error {
	if e.Cause != nil {
		return []error{ErrRetriesExhausted, e.Cause, e.Err}
	}
	return []error{ErrRetriesExhausted, e.Err}
}

// Class returns that of the error of the last attempt, or Cancelled when the
// context's end was the reason to give up.
func (e *RetryError) Class() Class {
	if errors.Is(e.Cause, context.Canceled) {
		return Cancelled
	}
	return Classify(e.Err)
}

// Rejected reports whether the function was never called, because each attempt
// was turned away.
func (e *RetryError) Rejected() bool { return e.rejected }

func quoted(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" %q", name)
}
