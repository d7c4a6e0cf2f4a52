package outbox

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// dueBatch is how many scheduled rows are moved in one transaction.
const dueBatch = 1000

// Rows that become due one after the other are moved several at a time: after a
// batch there is a pause, the longer the longer moving takes. What comes due by
// itself is moved at once.
const (
	minMovePause = 5 * time.Millisecond
	maxMovePause = 50 * time.Millisecond
)

// schedule moves scheduled rows into the log when they are due.
type schedule struct {
	term  *term
	next  time.Time // the earliest due time or, soon after a batch, when to look for it; zero if nothing is scheduled
	asked time.Time
	rest  time.Time // until when nothing is moved
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
	if now.Before(s.rest) {
		return
	}
	idle := s.next.IsZero() || s.next.After(now)
	if !t.box.later.Swap(false) && idle && now.Sub(s.asked) < t.cfg.poll {
		return
	}
	s.asked = now
	if now.Sub(s.whole) > wholeEvery {
		s.floor, s.whole = 0, now
	}
	for t.work.Err() == nil {
		moved, err := s.moveNext()
		switch {
		case errors.Is(err, errFenced):
			t.lost(errFenced)
		case err != nil:
			t.databaseError("move scheduled events into the log", err)
			return
		case moved == 0:
			return
		case moved < dueBatch:
			s.pause(time.Since(now))
			return
		}
	}
}

// moveNext moves a batch if the earliest row is due.
func (s *schedule) moveNext() (moved int, err error) {
	t := s.term
	var millis int64
	err = t.box.db.QueryRowContext(t.work, t.box.sql.nextDue, s.floor).Scan(&millis)
	if errors.Is(err, sql.ErrNoRows) {
		s.next = time.Time{}
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if s.next = time.UnixMilli(millis); s.next.After(time.Now()) {
		return 0, nil
	}
	if moved, err = t.moveBatch(s.floor); err == nil {
		s.floor = max(s.floor, millis-floorMargin.Milliseconds())
	}
	return moved, err
}

// pause puts off the next batch, after moving has taken a while.
func (s *schedule) pause(took time.Duration) {
	s.rest = time.Now().Add(min(max(minMovePause, 5*took), maxMovePause))
	s.next = s.rest
}

// moveBatch moves what is due and was not scheduled before floor, and returns how
// many rows that were.
func (t *term) moveBatch(floor int64) (moved int, err error) {
	q, now := &t.box.sql, time.Now().UnixMilli()
	err = t.box.fenced(t.work, t.lease.token, func(tx *sql.Tx) error {
		if q.takeDue != "" {
			moved, err = exec(t.work, tx, q.takeDue, floor, now, dueBatch, now)
			return err
		}
		due, err := positions(t.work, tx, q.due, floor, now, dueBatch)
		if moved = len(due); err != nil || moved == 0 {
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
	return moved, err
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
