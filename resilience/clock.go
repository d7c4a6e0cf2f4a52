package resilience

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// base is so long ago that now is positive also in a bubble of testing/synctest,
// where it is the year 2000.
var base = time.Now().Add(-century)

// now is the monotonic time in nanoseconds, at half the cost of time.Now: the
// clock is what a happy path spends most on.
func now() int64 { return int64(time.Since(base)) }

// ended returns why ctx has ended, or nil: the cause, and ctx's error where the
// cause does not say it.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// sleep waits for d. It returns why ctx has ended when that comes first.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ended(ctx)
	}
}

// endsBefore reports whether ctx's deadline comes before d has passed.
func endsBefore(ctx context.Context, d time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return ok && time.Until(deadline) <= d
}
