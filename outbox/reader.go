package outbox

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
	"github.com/millrace-go/millrace/internal/dialect"
)

// readBatch is how many rows are read at a time, fewer if they are large, and at
// first, when nobody knows how large they are.
const (
	readBatch  = 2000
	firstBatch = 500
	readBytes  = 32 << 20
)

// readPause is the least time from a read that finds a few rows to the next: a
// poke is answered at once, a hundred in a row with fewer reads.
const readPause = 5 * time.Millisecond

// maxAhead bounds how many rows beyond the recorded progress the relay
// publishes while an early row is being retried: what a crash may repeat.
const maxAhead = 20_000

// slowRecord is how long recording may take before the relay waits for it: on a
// database that others keep busy it might lose its lease, and repeat all that it
// has published meanwhile.
const slowRecord = 100 * time.Millisecond

// readLog adds the rows behind the cursor to the lane, as they come, until work
// ends or, once the relay is being stopped, the end of the log is reached.
func (t *term) readLog() {
	r := reader{term: t, watch: newGapWatch(t), batch: min(firstBatch, t.cfg.limit), entries: make([]dispatch.Entry[*row], 0, readBatch)}
	defer r.adding.Wait()
	s := schedule{term: t}
	for t.work.Err() == nil {
		stopping := t.intake.Err() != nil // asked before reading: what was there then is read
		if !t.roomAhead(r.last) {
			continue
		}
		s.moveDue()
		began := time.Now()
		found, full, err := r.next()
		if err != nil {
			t.databaseError("read the log", err)
			continue
		}
		if full {
			continue
		}
		if stopping {
			return
		}
		if found {
			r.active = began
		}
		t.rest(s.next, r.active)
		if found {
			dialect.Sleep(t.work, readPause-time.Since(began))
		}
	}
}

// reader is what the goroutine of readLog keeps between two reads.
type reader struct {
	*term
	watch   gapWatch
	last    int64 // the number of the last row
	batch   int   // how many rows to read
	active  time.Time
	rows    []*row
	entries []dispatch.Entry[*row]
	adding  sync.WaitGroup // of the entries to the dispatcher
}

// next reads once, and reports whether it found anything and whether there may
// be more.
func (r *reader) next() (found, full bool, err error) {
	frontier, missing := r.cursor.where()
	q := r.watch.query(frontier, missing, r.batch)
	began := time.Now()
	query := r.box.queryRows
	if q.packed {
		query = r.box.queryPacked
	}
	r.rows, err = query(r.work, r.rows[:0], q.text, q.args)
	if err != nil {
		return false, false, err
	}
	r.adapt() // before they are somebody else's
	rows := r.watch.sift(r.rows, q, time.Since(began))
	if !slices.IsSortedFunc(rows, byPosition) {
		slices.SortFunc(rows, byPosition)
	}
	if r.add(rows) {
		r.watch.taken()
	}
	clear(r.rows)
	return len(rows) > 0, len(rows) >= q.limit, nil
}

// adapt makes the next read smaller or larger, by what this one took.
func (r *reader) adapt() {
	bytes := 0
	for _, w := range r.rows {
		bytes += len(w.payload) + len(w.metadata)
	}
	if bytes > readBytes {
		r.batch = max(1, r.batch/2)
	} else if bytes < readBytes/4 {
		r.batch = min(2*r.batch, readBatch, r.cfg.limit)
	}
}

func byPosition(a, b *row) int { return cmp.Compare(a.position, b.position) }

// add hands rows to the dispatcher, as many at once as find room. If all do, it
// does not wait: the database is asked for the next ones meanwhile. It reports
// false when work has ended before all were taken.
func (r *reader) add(rows []*row) bool {
	for len(rows) > 0 {
		r.adding.Wait()
		room := r.cfg.limit - r.term.rows.Len()
		n := max(1, min(len(rows), room))
		// What was missing before a row is known before the detour may look behind it.
		number := r.cursor.take(rows[:n])
		r.detour.take(rows[:n])
		r.entries = r.entries[:0]
		for _, w := range rows[:n] {
			r.entries = append(r.entries, dispatch.Entry[*row]{Key: w.order, Position: number, Attempt: 1, Record: w})
			r.last = number
			number++
		}
		if n == len(rows) && n <= room {
			r.adding.Go(func() { _ = r.addEntries() }) // fails only when work has ended
			return true
		}
		if err := r.addEntries(); err != nil {
			return false
		}
		rows = rows[n:]
	}
	return true
}

func (r *reader) addEntries() error {
	defer clear(r.entries)
	_, err := r.lane.AddBatch(r.work, r.entries)
	return err
}

// roomAhead waits while the relay must not get further ahead of what it has
// recorded.
func (t *term) roomAhead(last int64) bool {
	limit := int64(maxAhead)
	if since := t.recordingSince.Load(); since != 0 && time.Now().UnixMilli()-since > slowRecord.Milliseconds() {
		limit = recordRows
	}
	if !t.stuck.Load() && last-t.recorded.Load() < limit {
		return true
	}
	select {
	case <-t.work.Done():
	case <-t.advancing:
	}
	return false
}

// minPoll is how soon the relay looks again after it has found something.
const minPoll = 5 * time.Millisecond

// rest waits for a poke, the next due time, the next poll or the end. Polls
// follow each other at an eighth of the time for which nothing was found.
func (t *term) rest(due, active time.Time) {
	pause := min(t.cfg.poll, max(minPoll, time.Since(active)/8))
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
