package outbox

import (
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
}

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
	for t.work.Err() == nil {
		var millis int64
		err := t.box.db.QueryRowContext(t.work, t.box.sql.nextDue).Scan(&millis)
		if errors.Is(err, sql.ErrNoRows) {
			s.next = time.Time{}
			return
		}
		if err == nil {
			s.next = time.UnixMilli(millis)
			if s.next.After(time.Now()) {
				return
			}
			err = t.moveBatch()
		}
		if errors.Is(err, errFenced) {
			t.lost(errFenced)
		} else if err != nil {
			t.databaseError("move scheduled events into the log", err)
			return
		}
	}
}

func (t *term) moveBatch() error {
	q, now := &t.box.sql, time.Now().UnixMilli()
	return t.box.fenced(t.work, q.fence, []any{t.lease.token}, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(t.work, q.moveDue, now, now, dueBatch); err != nil {
			return err
		}
		_, err := tx.ExecContext(t.work, q.deleteDue, now, dueBatch)
		return err
	})
}
