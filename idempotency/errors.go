package idempotency

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
)

// Errors that callers may decide on, with errors.Is.
var (
	// ErrLost is in the chain of errors about a claim that is no longer held: its
	// lease ended and another one has, or may have, claimed the key. It is the cause
	// of the context of a function that still runs then.
	ErrLost = errors.New("the claim is lost: its lease ended, or it was completed or released")
	// ErrInProgress is what every *InProgressError is.
	ErrInProgress = errors.New("the operation is in progress elsewhere")
	// ErrMismatch is in the chain of errors about a key that was used before for
	// something else. They are permanent.
	ErrMismatch = errors.New("the key was used before with a different request")
	// ErrTooOld is in the chain of errors about an operation that was issued
	// longer ago than results are kept, and of which nothing is known: whether it
	// was done can't be told, so it is refused. They are permanent.
	ErrTooOld = errors.New("it was issued longer ago than results are kept, so whether it was done is not known")
	// ErrNoResult is in the chain of errors about a duplicate of an operation that
	// was done, but whose result could not be kept or can't be read. They are
	// permanent.
	ErrNoResult = errors.New("it was done, but its result is not available")
	// ErrUnrecorded is in the chain of errors about an operation that was done, but
	// the store could not be told: its duplicates may do it again.
	ErrUnrecorded = errors.New("it was done, but could not be recorded")
	// ErrHeldTooLong is the cause of the context of a function that has run for
	// Policy.MaxHold.
	ErrHeldTooLong = errors.New("the claim was held for too long")
	// ErrFull is in the chain of errors of a MemoryStore that has no room.
	ErrFull = errors.New("the store is full")
)

// InProgressError says that another caller is doing the operation. A service of
// package eventbus delivers the event again after the time of RetryAfter.
type InProgressError struct {
	Key Key
	// After is when trying again makes sense: when the holder's lease ends, if he
	// has crashed. He may well be done earlier.
	After time.Duration
}

// Error says which operation it is and when to try again.
func (e *InProgressError) Error() string {
	return fmt.Sprintf("idempotency: %s: %v; try again in %v", e.Key, ErrInProgress, e.After)
}

// RetryAfter is recognised by package eventbus and others.
func (e *InProgressError) RetryAfter() time.Duration { return e.After }

// Is makes the error one with ErrInProgress.
func (e *InProgressError) Is(target error) bool { return target == ErrInProgress }

// refused builds a permanent error about a key.
func refused(k Key, err error) error {
	return eventbus.Permanent(fmt.Errorf("idempotency: %s: %w", k, err))
}
