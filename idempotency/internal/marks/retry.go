package marks

import (
	"context"

	"github.com/millrace-go/millrace/internal/dialect"
)

// Retry runs a transaction again as long as the database rolls it back because
// of another one before the handler was called: on MySQL, deliveries that waited
// for one that was rolled back deadlock over its mark. Whoever has called the
// handler says so by called, and that error is for the caller's retry policy.
func (s *State) Retry(ctx context.Context, attempt func(called *bool) error) error {
	var called bool
	if s.Dialect == dialect.SQLite { // its busy timeout has waited already
		return attempt(&called)
	}
	var last error
	_ = s.Dialect.Retry(ctx, func() error {
		last = attempt(&called)
		if called {
			return nil
		}
		return last
	})
	return last
}
