package outbox

import (
	"context"
	"database/sql"
	"time"
)

const (
	sweepRows  = 1000                   // of one statement
	sweepEvery = 100 * time.Millisecond // when there is little to delete
	sweepRest  = 30 * time.Second       // with a retention, at most
	sweepRetry = 5 * time.Second        // after an error
)

// sweep deletes published rows, those older than the retention if there is one,
// in steps of bounded size, until work ends. It goes up to the first position
// that is missing, and begins where it stopped before, so that a step costs the
// same however many rows are kept and however many deleted ones the database
// could not clean up yet. It needs no fence: what is recorded as published stays
// so whoever owns the outbox.
func (t *term) sweep() {
	idle := sweepEvery
	if t.cfg.retention > 0 {
		idle = max(sweepEvery, min(sweepRest, t.cfg.retention/10))
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-t.work.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		more, err := t.sweepStep()
		switch {
		case err != nil && t.work.Err() == nil:
			t.log.Error("outbox: published events could not be deleted, trying again", "error", err)
			timer.Reset(sweepRetry)
		case more: // half of the time is left to others
			timer.Reset(time.Since(began))
		default:
			timer.Reset(idle)
		}
	}
}

// sweepLast deletes what was published since the sweeper ended, as far as that is
// quick.
func (t *term) sweepLast() {
	for began := time.Now(); time.Since(began) < grace/2; {
		if more, err := t.sweepStep(); err != nil || !more {
			return
		}
	}
}

// sweepStep deletes the oldest rows and reports whether there may be more.
func (t *term) sweepStep() (more bool, err error) {
	from, limit := t.swept.Load(), t.complete.Load()
	if from >= limit {
		return false, nil
	}
	ctx, cancel := t.bounded()
	defer cancel()
	upTo, more, err := t.sweepable(ctx, from, limit)
	if err != nil || upTo == from {
		return false, err
	}
	err = t.box.sql.dialect.ReadCommitted(ctx, t.box.db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, t.box.sql.deleteRange, from, upTo)
		return err
	})
	if err != nil {
		return false, err
	}
	t.swept.Store(upTo)
	return more, nil
}

// sweepable returns up to which position the next rows may be deleted, and
// whether there may be more behind.
func (t *term) sweepable(ctx context.Context, from, limit int64) (upTo int64, more bool, err error) {
	q := &t.box.sql
	var rows int
	var last, written int64
	if err := t.box.db.QueryRowContext(ctx, q.chunk, from, limit, sweepRows).Scan(&rows, &last, &written); err != nil {
		return from, false, err
	}
	before := time.Now().Add(-t.cfg.retention).UnixMilli()
	switch {
	case t.cfg.retention > 0 && written >= before:
		return t.sweepableRows(ctx, from, limit, before)
	case rows == sweepRows:
		return last, true, nil
	}
	return limit, false, nil
}

// sweepableRows returns the position before the first row that is to be kept.
func (t *term) sweepableRows(ctx context.Context, from, limit, before int64) (upTo int64, more bool, err error) {
	rows, err := t.box.db.QueryContext(ctx, t.box.sql.oldest, from, limit, sweepRows)
	if err != nil {
		return from, false, err
	}
	defer rows.Close()
	for upTo = from; rows.Next(); {
		var position, written int64
		if err := rows.Scan(&position, &written); err != nil {
			return from, false, err
		}
		if written >= before {
			break
		}
		upTo = position
	}
	return upTo, false, rows.Err()
}
