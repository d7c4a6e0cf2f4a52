package outbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Stats says how an outbox is doing.
type Stats struct {
	// Pending is how many events are due and not yet recorded as published. It is
	// counted up to 10,000 and estimated from positions beyond.
	Pending int64
	// OldestPending is how long the first of them has been in the log; 0 if none.
	OldestPending time.Duration
	// Scheduled is how many events wait for their due time.
	Scheduled int64
	// NextDue is the earliest due time; the zero time if nothing is scheduled.
	NextDue time.Time
	// Parked is how many events have been set aside.
	Parked int64
	// Relay names the process whose relay is active, or was last without having
	// been stopped; empty if none.
	Relay string
	// LeaseUntil is until when that relay may be counted on. A time in the past
	// says that no relay is running.
	LeaseUntil time.Time
	// Gaps is how many runs of positions were missing when progress was last
	// recorded: of transactions that are open, or were rolled back not long ago.
	Gaps int
}

// countUpTo bounds what counting the log may cost.
const countUpTo = 10_000

// Stats returns the state of the outbox. Its cost does not grow with the number
// of published events that are kept.
func (o *Outbox) Stats(ctx context.Context) (Stats, error) {
	if o.err != nil {
		return Stats{}, o.err
	}
	s, err := o.readStats(ctx)
	if err != nil {
		return Stats{}, fmt.Errorf("outbox: stats of %s: %w", o.sql.prefix, o.explain(err))
	}
	return s, nil
}

func (o *Outbox) readStats(ctx context.Context) (Stats, error) {
	var s Stats
	tx, err := o.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return s, err
	}
	defer func() { _ = tx.Rollback() }()
	var until, published, due int64
	var encoded []byte
	if err := tx.QueryRowContext(ctx, o.sql.state).Scan(&s.Relay, &until, &published, &encoded); err != nil {
		return s, err
	}
	missing, err := decodeGaps(encoded)
	if err != nil {
		return s, err
	}
	s.Gaps = len(missing)
	if until > 0 {
		s.LeaseUntil = time.UnixMilli(until)
	}
	if err := o.readPending(ctx, tx, published, &s); err != nil {
		return s, err
	}
	if err := optional(tx.QueryRowContext(ctx, o.sql.nextDue, 0).Scan(&due)); err != nil {
		return s, err
	}
	if due > 0 {
		s.NextDue = time.UnixMilli(due)
	}
	if err := tx.QueryRowContext(ctx, o.sql.scheduled).Scan(&s.Scheduled); err != nil {
		return s, err
	}
	return s, tx.QueryRowContext(ctx, o.sql.parkCount).Scan(&s.Parked)
}

func (o *Outbox) readPending(ctx context.Context, tx *sql.Tx, published int64, s *Stats) error {
	if err := tx.QueryRowContext(ctx, o.sql.pending, published, countUpTo+1).Scan(&s.Pending); err != nil {
		return err
	}
	if s.Pending == 0 {
		return nil
	}
	if s.Pending > countUpTo {
		var end int64
		if err := tx.QueryRowContext(ctx, o.sql.endOfLog).Scan(&end); err != nil {
			return err
		}
		s.Pending = end - published
	}
	var written int64
	if err := optional(tx.QueryRowContext(ctx, o.sql.oldestPending, published).Scan(&written)); err != nil {
		return err
	}
	s.OldestPending = max(0, time.Since(time.UnixMilli(written)))
	return nil
}

// optional accepts that a query has no row.
func optional(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}
