// Package failure is the one classifier of errors: retries, breakers, handlers
// of events and the outbox ask it what a failure means. Errors say it by
// methods, so that packages need not import each other.
package failure

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Class is what an error means for whoever might try again.
type Class int

const (
	// None is the class of nil.
	None Class = iota
	// Transient may pass by itself.
	Transient
	// Throttled is transient, and the other side, or a policy that stands in for
	// it, asks for less: later, or by RetryAfter at a given time.
	Throttled
	// Permanent will not be mended by trying again.
	Permanent
	// Cancelled means that the caller has given up.
	Cancelled
)

var names = [...]string{"none", "transient", "throttled", "permanent", "cancelled"}

// String returns the class's name in lower case.
func (c Class) String() string {
	if c < 0 || int(c) >= len(names) {
		return "unknown"
	}
	return names[c]
}

// Of returns the class of err. The first of these that is found in err's tree,
// outermost error first, decides: a method Permanent() bool that returns true;
// a method Class() Class that returns another than None; context.Canceled; a
// method RetryAfter() time.Duration. Any other error is Transient.
func Of(err error) Class {
	if err == nil {
		return None
	}
	if IsPermanent(err) {
		return Permanent
	}
	var said interface{ Class() Class }
	if errors.As(err, &said) {
		if c := said.Class(); c != None {
			return c
		}
	}
	if errors.Is(err, context.Canceled) {
		return Cancelled
	}
	if _, ok := RetryAfter(err); ok {
		return Throttled
	}
	return Transient
}

// MarkPermanent marks err as one that trying again will not mend. It returns
// nil for nil. Error text and chain stay as they are.
func MarkPermanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ error }

func (e *permanentError) Unwrap() error   { return e.error }
func (e *permanentError) Permanent() bool { return true }

// IsPermanent reports whether an error in err's tree has a method
// Permanent() bool that returns true.
func IsPermanent(err error) bool {
	if p, ok := err.(interface{ Permanent() bool }); ok && p.Permanent() {
		return true
	}
	switch x := err.(type) { //nolint:errorlint // this walks the tree itself
	case interface{ Unwrap() error }:
		return IsPermanent(x.Unwrap())
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(x.Unwrap(), IsPermanent)
	}
	return false
}

// WithRetryAfter gives err the delay after which trying again makes sense. It
// returns nil for nil.
func WithRetryAfter(err error, d time.Duration) error {
	if err == nil {
		return nil
	}
	return &retryAfterError{err, d}
}

type retryAfterError struct {
	error
	after time.Duration
}

func (e *retryAfterError) Unwrap() error             { return e.error }
func (e *retryAfterError) RetryAfter() time.Duration { return e.after }

// RetryAfter finds the delay that an error in err's tree asks for by a method
// RetryAfter() time.Duration.
func RetryAfter(err error) (time.Duration, bool) {
	var r interface{ RetryAfter() time.Duration }
	if !errors.As(err, &r) {
		return 0, false
	}
	return r.RetryAfter(), true
}

// IsRepeatable reports whether the call that returned err may be made again, if
// its class allows it: the first error in err's tree that has a method
// Repeatable() bool decides, and without one it may.
func IsRepeatable(err error) bool {
	var r interface{ Repeatable() bool }
	return !errors.As(err, &r) || r.Repeatable()
}

// IsRejected reports whether the first error in err's tree that has a method
// Rejected() bool returns true from it: a policy turned the call away, and the
// function was not called.
func IsRejected(err error) bool {
	var r interface{ Rejected() bool }
	return errors.As(err, &r) && r.Rejected()
}
