package idempotency

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/dialect"
)

// DefaultRetention is how long marks are kept if Retention doesn't say.
const DefaultRetention = 30 * 24 * time.Hour

const (
	pruneRows  = 1000                  // of one transaction
	prunePause = 20 * time.Millisecond // between two of them, for other writers
	pruneEvery = time.Hour             // at most; a hundredth of a short retention

	// Clocks differ between processes, so marks may appear somewhat before the
	// place up to which they have been deleted.
	pruneOverlap = int64(10 * time.Minute / time.Millisecond)
)

var _ eventbus.Runner = (*Inbox)(nil)

// Prune deletes the marks that are older than the retention, in steps of a
// thousand so that it never holds up other writers for long. It returns how
// many it deleted, also when ctx ends or the database fails half-way. Several
// processes may prune one table: they take turns, step by step.
//
// A step goes on where the one before has ended, so its cost depends neither on
// the marks that are kept nor on those that have been deleted but whose rows
// the database still holds for the sake of a long transaction.
func (i *Inbox) Prune(ctx context.Context) (int64, error) {
	if i.err != nil {
		return 0, i.err
	}
	before := time.Now().Add(-i.retention).UnixMilli()
	from := max(0, i.pruned.Load()-pruneOverlap)
	var total int64
	for {
		n, last, err := i.pruneStep(ctx, from, before)
		total += n
		i.state.Pruned.Add(n)
		if err != nil {
			return total, fmt.Errorf("idempotency: prune %s: %w", i.state.Table, err)
		}
		from = max(from, last)
		i.pruned.Store(max(i.pruned.Load(), last)) // of two at once, either will do
		if n < pruneRows {
			return total, nil
		}
		if !dialect.Sleep(ctx, prunePause) {
			return total, fmt.Errorf("idempotency: prune %s: %w", i.state.Table, context.Cause(ctx))
		}
	}
}

// pruneStep deletes a thousand marks and returns the time of the last.
func (i *Inbox) pruneStep(ctx context.Context, from, before int64) (n, last int64, err error) {
	d := i.state.Dialect
	err = i.state.Retry(ctx, func(*bool) error {
		return d.ReadCommitted(ctx, i.db, func(tx *sql.Tx) error {
			if d == MySQL {
				n, last, err = i.pruneMySQL(ctx, tx, from, before)
			} else {
				n, last, err = i.pruneReturning(ctx, tx, from, before)
			}
			return err
		})
	})
	if err != nil {
		return 0, 0, i.state.Explain(err)
	}
	return n, last, nil
}

func (i *Inbox) pruneReturning(ctx context.Context, tx *sql.Tx, from, before int64) (n, last int64, err error) {
	rows, err := tx.QueryContext(ctx, i.state.Prune, from, before, pruneRows)
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		var at int64
		if err := rows.Scan(&at); err != nil {
			return 0, 0, err
		}
		last = max(last, at)
	}
	return n, last, rows.Err()
}

func (i *Inbox) pruneMySQL(ctx context.Context, tx *sql.Tx, from, before int64) (n, last int64, err error) {
	var bound sql.NullInt64
	if err := tx.QueryRowContext(ctx, i.state.PruneBound, from, before, pruneRows).Scan(&bound); err != nil || !bound.Valid {
		return 0, 0, err
	}
	res, err := tx.ExecContext(ctx, i.state.Prune, from, bound.Int64, pruneRows)
	if err != nil {
		return 0, 0, err
	}
	n, err = res.RowsAffected()
	return n, bound.Int64, err
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
