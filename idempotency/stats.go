package idempotency

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Stats says what an inbox has done.
type Stats struct {
	// Oldest is when the oldest mark was written, zero if there is none. If it is
	// much older than the retention, nobody prunes.
	Oldest time.Time
	// Handled counts the events whose effects were committed by this process with
	// Once, Transact or Batch.
	Handled int64
	// Duplicates counts those that were dropped, and Remembered those of them that
	// were known from memory.
	Duplicates, Remembered int64
	// Pruned counts the marks that this process has deleted.
	Pruned int64
}

// Stats returns what the inbox has done. It asks the database for the oldest
// mark, which costs one look into an index; the counters are returned also if
// that fails.
func (i *Inbox) Stats(ctx context.Context) (Stats, error) {
	if i.err != nil {
		return Stats{}, i.err
	}
	s := Stats{
		Handled: i.state.Handled.Load(), Duplicates: i.state.Duplicates.Load(),
		Remembered: i.state.Remembered.Load(), Pruned: i.state.Pruned.Load(),
	}
	from := max(0, i.pruned.Load()-pruneOverlap)
	var at int64
	err := i.db.QueryRowContext(ctx, i.state.Oldest, from).Scan(&at)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return s, fmt.Errorf("idempotency: stats of %s: %w", i.state.Table, i.state.Explain(err))
	default:
		s.Oldest = time.UnixMilli(at).UTC()
	}
	return s, nil
}
