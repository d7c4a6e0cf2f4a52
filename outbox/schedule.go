package outbox

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// dueBatch is how many scheduled rows are moved in one transaction.
const dueBatch = 500

// schedule moves scheduled rows into the log when they are due.
type schedule struct {
	term  *term
	next  time.Time // the earliest due time, zero if nothing is scheduled
	asked time.Time
	floor int64     // the due time up to which everything has been moved
	whole time.Time // when it was last looked for below that
}

// Rows that were moved stay in the index until the database cleans up, which a
// long transaction elsewhere can put off. So they are passed over; what becomes
// due below the floor, because its transaction was open for so long, is found
// by looking everywhere now and then.
const (
	wholeEvery  = 5 * time.Second
	floorMargin = time.Second
)

// moveDue moves what is due. Whether something is, is asked once per poll and
// when this process has scheduled something.
func (s *schedule) moveDue() {
	t := s.term
	now := time.Now()
	idle := s.next.IsZero() || s.next.After(now)
	if !t.box.later.Swap(false) && idle && now.Sub(s.asked) < t.cfg.poll {
		return
	}
	s.asked = now
	if now.Sub(s.whole) > wholeEvery {
		s.floor, s.whole = 0, now
	}
	for t.work.Err() == nil {
		var millis int64
		err := t.box.db.QueryRowContext(t.work, t.box.sql.nextDue, s.floor).Scan(&millis)
		if errors.Is(err, sql.ErrNoRows) {
			s.next = time.Time{}
			return
		}
		if err == nil {
			s.next = time.UnixMilli(millis)
			if s.next.After(time.Now()) {
				return
			}
			if err = t.moveBatch(s.floor); err == nil {
				s.floor = max(s.floor, millis-floorMargin.Milliseconds())
			}
		}
		if errors.Is(err, errFenced) {
			t.lost(errFenced)
		} else if err != nil {
			t.databaseError("move scheduled events into the log", err)
			return
		}
	}
}

// moveBatch moves what is due and was not scheduled before floor.
func (t *term) moveBatch(floor int64) error {
	q, now := &t.box.sql, time.Now().UnixMilli()
	return t.box.fenced(t.work, t.lease.token, func(tx *sql.Tx) error {
		due, err := positions(t.work, tx, q.due, floor, now, dueBatch)
		if err != nil || len(due) == 0 {
			return err
		}
		move, args := q.list(q.moveDue, due, now)
		if _, err := tx.ExecContext(t.work, move, args...); err != nil {
			return err
		}
		drop, args := q.list(q.deleteDue, due)
		_, err = tx.ExecContext(t.work, drop, args...)
		return err
	})
}

// positions returns the positions that a query finds.
func positions(ctx context.Context, tx *sql.Tx, query string, args ...any) ([]int64, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []int64
	for rows.Next() {
		var p int64
		if err := rows.Scan(&p); err != nil {
			return nil, err
		}
		found = append(found, p)
	}
	return found, rows.Err()
}
