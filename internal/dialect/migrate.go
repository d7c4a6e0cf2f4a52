package dialect

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// busyPatience bounds how long Migrate waits for other writers, on top of the
// busy timeout of the connection.
const busyPatience = 15 * time.Second

// Migrate executes statements one by one. Each must be harmless when repeated,
// so that a migration which was cut short, or which several processes begin at
// once, completes. Busy databases are waited for.
func (d Dialect) Migrate(ctx context.Context, db *sql.DB, statements []string) error {
	deadline := time.Now().Add(busyPatience)
	for i, s := range statements {
		pause := 5 * time.Millisecond
		for {
			_, err := db.ExecContext(ctx, s)
			if err == nil {
				break
			}
			if !d.IsBusy(err) || time.Now().After(deadline) {
				return fmt.Errorf("statement %d of %d: %w", i+1, len(statements), err)
			}
			if !Sleep(ctx, pause) {
				return fmt.Errorf("statement %d of %d: %w: last error: %w", i+1, len(statements), context.Cause(ctx), err)
			}
			pause = min(2*pause, 200*time.Millisecond)
		}
	}
	return nil
}

// Script joins statements to a text for migration tools.
func Script(statements []string) string { return strings.Join(statements, ";\n\n") + ";\n" }

// Sleep pauses for d and reports false when ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
