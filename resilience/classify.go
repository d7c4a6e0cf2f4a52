package resilience

import (
	"errors"
	"time"

	"github.com/millrace-go/millrace/internal/failure"
)

// Class is what an error means for whoever might try again. Retries, breakers,
// event handlers and the outbox's relay share it.
type Class = failure.Class

// The classes of errors.
const (
	// Transient may pass by itself: it is tried again and counts as a failure.
	Transient = failure.Transient
	// Throttled is transient, and the other side asks for less: it is tried again
	// not before RetryAfter, and counts as a failure.
	Throttled = failure.Throttled
	// Permanent will not be mended by trying again. The other side has answered,
	// so a breaker counts it as a success.
	Permanent = failure.Permanent
	// Cancelled means that the caller has given up. It is not tried again and
	// counts for nothing.
	Cancelled = failure.Cancelled
)

// Classify returns the class of err, by default of those rules the first that
// applies: a method Permanent() bool in err's tree that returns true; a method
// Class() Class; context.Canceled is Cancelled; a method
// RetryAfter() time.Duration makes Throttled; all other errors are Transient.
// The class of nil is 0.
func Classify(err error) Class { return failure.Of(err) }

// AsPermanent marks err as one that trying again will not mend; it does the
// same as eventbus.Permanent. It returns nil for nil.
func AsPermanent(err error) error { return failure.MarkPermanent(err) }

// AsThrottled gives err the time after which trying again makes sense; it does
// the same as eventbus.RetryAfter. It returns nil for nil.
func AsThrottled(err error, after time.Duration) error { return failure.WithRetryAfter(err, after) }

// RetryAfter finds the delay that an error in err's tree asks for by a method
// RetryAfter() time.Duration.
func RetryAfter(err error) (time.Duration, bool) { return failure.RetryAfter(err) }

// IsRejected reports whether a policy turned the call away, so that the
// function was never called: an open breaker, a full bulkhead, a limiter.
func IsRejected(err error) bool { return failure.IsRejected(err) }

// isFailure is what breakers and adaptive limiters count by default. A call that
// another policy turned away says nothing about the other side.
func isFailure(err error) bool {
	switch Classify(err) {
	case Transient, Throttled:
		return !IsRejected(err)
	}
	return false
}

// isIgnored reports whether err says nothing about the other side.
func isIgnored(err error) bool { return Classify(err) == Cancelled || IsRejected(err) }

func isRetryable(err error) bool {
	c := Classify(err)
	return c == Transient || c == Throttled
}

// isTimeout reports whether err says, as a net.Error does, that time was up.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
