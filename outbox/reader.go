package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/millrace-go/millrace/internal/dialect"
)

// readBatch is how many rows are read at a time.
const readBatch = 500

// readPause is the least time between two reads that find the end of the log: a
// poke is answered at once, a hundred in a row with fewer reads.
const readPause = 2 * time.Millisecond

// maxAhead bounds how many positions beyond the recorded cursor the relay
// publishes while a row near the cursor is being retried: what a crash may
// repeat.
const maxAhead = 20_000

// row is an event of the log in the relay's hands.
type row struct {
	position       int64
	id, topic, key string
	metadata       []byte
	payload        []byte
	tries          tries
	sent           bool // published already, by a detour
}

// order is the key by which the dispatcher keeps rows in order.
func (r *row) order() string {
	if r.key == "" {
		return ""
	}
	return r.topic + "\x00" + r.key
}

// readLog adds the rows behind the cursor to the lane, as they come, until work
// ends or, once the relay is being stopped, the end of the log is reached.
func (t *term) readLog() {
	at := t.recorded.Load()
	var buffer []*row
	s := schedule{term: t}
	for t.work.Err() == nil {
		stopping := t.intake.Err() != nil // asked before reading: what was there then is read
		if !t.roomAhead(at) {
			continue
		}
		s.moveDue()
		began := time.Now()
		rows, err := t.readRows(buffer[:0], at)
		if err != nil {
			t.databaseError("read the log", err)
			continue
		}
		buffer = rows
		for _, r := range rows {
			t.detour.take(r)
			if t.lane.Add(t.work, r.order(), r.position, 1, r) != nil {
				return
			}
			at = r.position
		}
		if len(rows) == readBatch {
			continue
		}
		if stopping {
			return
		}
		t.rest(s.next)
		dialect.Sleep(t.work, readPause-time.Since(began))
	}
}

// roomAhead waits while the relay must not get further ahead of the cursor.
func (t *term) roomAhead(at int64) bool {
	if !t.stuck.Load() && at-t.recorded.Load() < maxAhead {
		return true
	}
	select {
	case <-t.work.Done():
	case <-t.advancing:
	}
	return false
}

// rest waits for a poke, the next due time, the next poll or the end.
func (t *term) rest(due time.Time) {
	pause := t.cfg.poll
	if !due.IsZero() {
		pause = max(0, min(pause, time.Until(due)))
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.wake:
	case <-t.intake.Done():
	case <-t.work.Done():
	}
}

func (t *term) readRows(into []*row, after int64) ([]*row, error) {
	rows, err := t.box.db.QueryContext(t.work, t.box.sql.read, after, readBatch)
	if err != nil {
		return into, err
	}
	defer rows.Close()
	for rows.Next() {
		r := new(row)
		if err := rows.Scan(&r.position, &r.id, &r.topic, &r.key, &r.metadata, &r.payload); err != nil {
			return into, err
		}
		into = append(into, r)
	}
	return into, errors.Join(rows.Err(), rows.Close())
}

// databaseError logs an error that the relay waits out.
func (t *term) databaseError(what string, err error) {
	if t.work.Err() != nil {
		return
	}
	t.log.Error("outbox: the relay's database fails, trying again", "operation", what, "error", err)
	dialect.Sleep(t.work, databasePause)
}

// bounded returns a context for one transaction of the relay.
func (t *term) bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), max(t.cfg.lease/2, time.Second))
}
