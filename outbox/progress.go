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
	recordEvery    = 20 * time.Millisecond
	recordRows     = 1000
	maxRecordEvery = time.Second
)

// record is the committer: it writes progress and keeps the lease, until work
// ends.
func (t *term) record() {
	renew := time.NewTimer(t.cfg.lease / 4)
	defer renew.Stop()
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

// behind is how many rows are published and not recorded.
func (t *term) behind() int64 {
	mark, ok := t.lane.Watermark()
	if !ok {
		return 0
	}
	return mark - t.recorded.Load()
}

// coalesce waits for more progress, so that one statement records it all. What
// takes long to write is written less often.
func (t *term) coalesce(stopping bool) {
	every := min(maxRecordEvery, max(recordEvery, 5*t.recording))
	limit := time.NewTimer(time.Until(t.lease.taken.Add(every)))
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
	began := time.Now()
	t.recordingSince.Store(began.UnixMilli())
	err := t.recordUpTo(ctx)
	t.recordingSince.Store(0)
	t.recording = time.Since(began)
	switch {
	case err == nil:
		t.stuck.Store(false)
		signal(t.advancing)
		return true
	case errors.Is(err, errFenced):
		t.lost(errFenced)
	case errors.Is(err, errRestarted):
		t.lost(errRestarted)
	default:
		t.stuck.Store(true)
		t.log.Error("outbox: progress could not be recorded, trying again", "error", err)
	}
	return false
}

func (t *term) recordUpTo(ctx context.Context) error {
	l := t.lease
	mark, ok := t.lane.Watermark()
	if !ok {
		mark = t.recorded.Load()
	}
	frontier, _ := t.cursor.where()
	published, missing := t.cursor.pass(mark)
	swept := t.swept.Load()
	began := time.Now()
	bound, err := t.box.renew(ctx, l, published, missing.encode(), swept)
	if err != nil {
		return err
	}
	l.published, l.missing, l.swept, l.taken = published, missing, swept, began
	if bound != 0 {
		t.cursor.bind(frontier, bound)
	}
	t.recorded.Store(mark)
	t.complete.Store(l.complete())
	t.stopBy.Store(l.stopBy().UnixMilli())
	t.expiry.Reset(time.Until(l.stopBy()))
	return nil
}

// complete is the position up to which nothing is missing.
func (l *lease) complete() int64 {
	if len(l.missing) > 0 {
		return l.missing[0].from - 1
	}
	return l.published
}

// renew records progress under a lease and extends it, unless the server has
// restarted. On PostgreSQL it returns the id of its transaction.
func (o *Outbox) renew(ctx context.Context, l *lease, published int64, missing []byte, swept int64) (xid int64, err error) {
	args := []any{published, missing, swept, l.duration.Milliseconds(), l.token}
	switch o.sql.dialect {
	case Postgres:
		err = o.db.QueryRowContext(ctx, o.sql.renew, append(args, l.server)...).Scan(&xid)
		if errors.Is(err, sql.ErrNoRows) {
			err = o.fenced(ctx, l.token, func(*sql.Tx) error { return errRestarted })
		}
		return xid, err
	case MySQL:
		// A row that is the same as before does not count as affected.
		return 0, o.fenced(ctx, l.token, func(tx *sql.Tx) error {
			start, err := o.serverStart(ctx, tx)
			if err != nil {
				return err
			}
			if !start.Equal(l.server) {
				return errRestarted
			}
			_, err = tx.ExecContext(ctx, o.sql.renew, args...)
			return err
		})
	}
	done, err := o.sql.dialect.Turn(ctx, o.db)
	if err != nil {
		return 0, err
	}
	defer done()
	res, err := o.db.ExecContext(ctx, o.sql.renew, args...)
	if err != nil {
		return 0, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return 0, errors.Join(err, errFenced)
	}
	return 0, nil
}

// recordLast records what was published since the committer ended.
func (t *term) recordLast() {
	if t.behind() == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := t.recordUpTo(ctx); err != nil && !errors.Is(err, errFenced) && !errors.Is(err, errRestarted) {
		t.log.Error("outbox: the last progress could not be recorded; some events will be published again", "error", err)
	}
}
