package idempotency

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/dialect"
)

const (
	pruneRows  = 1000                  // of one transaction
	prunePause = 20 * time.Millisecond // between two of them, for other writers
	pruneEvery = time.Hour             // at most; a hundredth of a short retention
)

var _ eventbus.Runner = (*Inbox)(nil)

// Prune deletes the marks that are older than the retention, in steps of a
// thousand so that it never holds up other writers for long. It returns how
// many it deleted, also when ctx ends or the database fails half-way.
func (i *Inbox) Prune(ctx context.Context) (int64, error) {
	if i.err != nil {
		return 0, i.err
	}
	before := time.Now().Add(-i.retention).UnixMilli()
	var total int64
	for {
		n, err := i.pruneStep(ctx, before)
		total += n
		if err != nil {
			return total, fmt.Errorf("idempotency: prune %s: %w", i.sql.table, err)
		}
		if n < pruneRows {
			return total, nil
		}
		if !dialect.Sleep(ctx, prunePause) {
			return total, fmt.Errorf("idempotency: prune %s: %w", i.sql.table, context.Cause(ctx))
		}
	}
}

func (i *Inbox) pruneStep(ctx context.Context, before int64) (int64, error) {
	done, err := i.sql.dialect.Turn(ctx, i.db)
	if err != nil {
		return 0, err
	}
	defer done()
	res, err := i.db.ExecContext(ctx, i.sql.prune, before, pruneRows)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// Run prunes at once and then about every hour until ctx ends; it then returns
// nil. Errors of the database are logged and retried; it fails only, at once, if
// NewInbox was given bad arguments. Several may run on one table.
func (i *Inbox) Run(ctx context.Context) error {
	if i.err != nil {
		return i.err
	}
	every := max(time.Second, min(pruneEvery, i.retention/100))
	for {
		n, err := i.Prune(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			i.log().Error("idempotency: old marks could not be deleted, trying again", "error", err, "in", every)
		case n > 0:
			i.log().Debug("idempotency: old marks deleted", "count", n)
		}
		if !dialect.Sleep(ctx, every) {
			return nil
		}
	}
}
