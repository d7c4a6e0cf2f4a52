package resilience

import (
	"context"

	"github.com/millrace-go/millrace/internal/hop"
)

// PreviousAttempts returns how often the call that ctx belongs to was tried
// before, here or by a caller further up: 0 at the first try. Clients pass it
// on, so that a Retry beneath a retried call leaves its own retries out and
// retries along a chain of services add up instead of multiplying.
func PreviousAttempts(ctx context.Context) int { return hop.Previous(ctx) }

// WithPreviousAttempts returns a context of a call that was tried n times
// before. Servers use it to hand on what their client told them.
func WithPreviousAttempts(ctx context.Context, n int) context.Context {
	if n <= 0 {
		return ctx
	}
	return hop.With(ctx, n)
}
