package httpresilience

import (
	"context"
	"errors"
)

// ended returns why ctx ended, in terms of package context and of whoever ended
// it, or err if it has not.
func ended(ctx context.Context, err error) error {
	reason, cause := ctx.Err(), context.Cause(ctx)
	switch {
	case reason == nil:
		return err
	case errors.Is(cause, reason):
		return cause
	}
	return &endedError{reason, cause}
}

// endedError is the end of a context with a cause of its own.
type endedError struct{ reason, cause error }

func (e *endedError) Error() string   { return e.reason.Error() + ": " + e.cause.Error() }
func (e *endedError) Unwrap() []error { return []error{e.reason, e.cause} }
