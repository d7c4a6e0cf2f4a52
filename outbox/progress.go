package outbox

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Progress is recorded when either of these is reached. Each record is an fsync
// and, on SQLite, takes the database's only writer.
const (
	recordEvery = 20 * time.Millisecond
	recordRows  = 500
)

// record is the committer: it writes progress, keeps the lease and sweeps
// published rows, until work ends.
func (t *term) record() {
	renew := time.NewTimer(t.cfg.lease / 4)
	defer renew.Stop()
	sweep := newSweeper(t)
	defer sweep.stop()
	drained := t.drained
	read := t.read
	for {
		select {
		case <-t.work.Done():
			return
		case <-t.moved:
			t.coalesce(read == nil)
		case <-read:
			read = nil
		case <-renew.C:
		case <-sweep.due():
			sweep.step()
			continue
		}
		if t.recordNow() {
			renew.Reset(t.cfg.lease / 4)
		} else {
			renew.Reset(min(databasePause, t.cfg.lease/10))
		}
		if read == nil && drained != nil && t.rows.Len() == 0 && t.behind() == 0 {
			close(drained)
			drained = nil
		}
	}
}

// behind is how many positions are published and not recorded.
func (t *term) behind() int64 {
	mark, ok := t.lane.Watermark()
	if !ok {
		return 0
	}
	return mark - t.lease.published
}

// coalesce waits for more progress, so that one transaction records it all.
func (t *term) coalesce(stopping bool) {
	limit := time.NewTimer(time.Until(t.lease.taken.Add(recordEvery)))
	defer limit.Stop()
	for !stopping && t.behind() < recordRows {
		select {
		case <-t.moved:
		case <-limit.C:
			return
		case <-t.intake.Done():
			return
		case <-t.work.Done():
			return
		}
	}
}

// recordNow writes the cursor and renews the lease, and reports whether that
// worked. A lease that has passed to somebody else ends the term.
func (t *term) recordNow() bool {
	ctx, cancel := t.bounded()
	defer cancel()
	err := t.recordUpTo(ctx)
	switch {
	case err == nil:
		t.stuck.Store(false)
		signal(t.advancing)
		return true
	case errors.Is(err, errFenced):
		t.lost(errFenced)
	default:
		t.stuck.Store(true)
		t.log.Error("outbox: progress could not be recorded, trying again", "error", err)
	}
	return false
}

func (t *term) recordUpTo(ctx context.Context) error {
	l, q := t.lease, &t.box.sql
	mark, ok := t.lane.Watermark()
	if !ok {
		mark = l.published
	}
	now := time.Now()
	err := t.box.fenced(ctx, q.renew, []any{mark, now.Add(l.duration).UnixMilli(), l.token}, func(tx *sql.Tx) error {
		if t.cfg.retention > 0 || mark == l.published {
			return nil
		}
		_, err := tx.ExecContext(ctx, q.deleteRange, l.published, mark)
		return err
	})
	if err != nil {
		return err
	}
	l.published, l.taken = mark, now
	t.recorded.Store(mark)
	t.stopBy.Store(l.stopBy().UnixMilli())
	t.expiry.Reset(time.Until(l.stopBy()))
	return nil
}

// recordLast records what was published since the committer ended.
func (t *term) recordLast() {
	if t.behind() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := t.recordUpTo(ctx); err != nil && !errors.Is(err, errFenced) {
		t.log.Error("outbox: the last progress could not be recorded; some events will be published again", "error", err)
	}
}
