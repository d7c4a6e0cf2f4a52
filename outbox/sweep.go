package outbox

import (
	"database/sql"
	"errors"
	"time"
)

const (
	sweepRows  = 500                    // of one transaction
	sweepPause = 20 * time.Millisecond  // between two full steps, for other writers
	sweepRest  = 30 * time.Second       // when nothing is left, at most
	sweepRetry = 5 * time.Second        // after an error
	sweepMin   = 100 * time.Millisecond // for tiny retentions
)

// sweeper deletes published rows that are older than the retention, in steps of
// bounded size. Without a retention it removes, once, what a relay with one has
// left behind.
type sweeper struct {
	term  *term
	timer *time.Timer
}

func newSweeper(t *term) *sweeper {
	return &sweeper{term: t, timer: time.NewTimer(0)}
}

func (s *sweeper) due() <-chan time.Time { return s.timer.C }
func (s *sweeper) stop()                 { s.timer.Stop() }

// step deletes what is old among the oldest rows and sets the next time.
func (s *sweeper) step() {
	t := s.term
	deleted, err := t.sweep()
	switch {
	case errors.Is(err, errFenced):
		t.lost(errFenced)
	case err != nil:
		t.log.Error("outbox: published events could not be deleted, trying again", "error", err)
		s.timer.Reset(sweepRetry)
	case deleted == sweepRows:
		s.timer.Reset(sweepPause)
	case t.cfg.retention > 0:
		s.timer.Reset(max(sweepMin, min(sweepRest, t.cfg.retention/10)))
	}
}

func (t *term) sweep() (deleted int64, err error) {
	ctx, cancel := t.bounded()
	defer cancel()
	l, q := t.lease, &t.box.sql
	before := time.Now().Add(-t.cfg.retention).UnixMilli()
	if t.cfg.retention == 0 {
		before = 1<<63 - 1
	}
	err = t.box.fenced(ctx, q.fence, []any{l.token}, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, q.sweep, before, l.published, sweepRows)
		if err != nil {
			return err
		}
		deleted, err = res.RowsAffected()
		return err
	})
	return deleted, err
}
