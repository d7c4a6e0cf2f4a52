package outbox

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// detour publishes single rows ahead of their turn. When the relay's hands are
// full of rows that all fail, it can't tell whether the broker is down or
// refuses just these, and would never get to the others. So it looks further
// down the log for a row of a topic that it has nothing of in hand, or of
// another key if they are few: publishing that one breaks no order, and if it is
// accepted the broker is up and the failures count.
type detour struct {
	mu       sync.Mutex
	busy     bool                // a row is being looked for or published
	over     sync.Cond           // that is over
	takenTo  int64               // the last position that went into the lane
	entering *row                // the last row, until a worker has it: it may wait for room
	inHand   []*row              // rows in the lane that are not settled, in no order
	sent     map[int64]struct{}  // positions that are published and not read in their turn yet
	avoid    map[string]struct{} // topics that failed here too
}

const (
	detourRange = 50_000 // positions to look through
	detourRows  = 200    // published ahead of their turn at most
	detourGaps  = 2000   // runs of missing positions to look at
	detourKeys  = 50     // in hand, to look for others of the same topics
)

// take records rows that go into the lane. The last one may have to wait there for
// room.
func (d *detour) take(rows []*row) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wait()
	for _, r := range rows {
		d.takenTo = max(d.takenTo, r.position)
		if _, r.gone = d.sent[r.position]; r.gone {
			delete(d.sent, r.position)
			continue
		}
		r.place = len(d.inHand)
		d.inHand = append(d.inHand, r)
		d.entering = r
	}
}

// wait lets a detour end that may be about the caller's row.
func (d *detour) wait() {
	for d.busy {
		d.over.Wait()
	}
}

// claim gives rows to a worker, but for those that are dealt with already.
func (d *detour) claim(items []*item) (left []*item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left = items[:0]
	for _, it := range items {
		if d.entering == it.Record {
			d.wait()
			d.entering = nil
		}
		if !it.Record.gone {
			left = append(left, it)
		}
	}
	return left
}

// settled records that rows are out of the relay's hands.
func (d *detour) settled(items ...*item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, it := range items {
		d.drop(it.Record)
	}
}

func (d *detour) drop(r *row) {
	end := len(d.inHand) - 1
	last := d.inHand[end]
	d.inHand[r.place], last.place = last, r.place
	d.inHand[end] = nil
	d.inHand = d.inHand[:end]
	r.gone = true
}

// held returns the topics in hand, and the keys.
func (d *detour) held() (topics, orders map[string]int) {
	topics, orders = map[string]int{}, map[string]int{}
	for _, r := range d.inHand {
		topics[r.topic]++
		if r.order != "" {
			orders[r.order]++
		}
	}
	return topics, orders
}

// begin reserves the detour for the caller, and returns what it may be about:
// the row that waits for room if that will do, else the condition for others.
func (d *detour) begin(q *statements, c *cursor) (r *row, query string, args []any, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, missing := c.where()
	if d.busy || len(d.sent) >= detourRows || len(missing) > detourGaps {
		return nil, "", nil, false
	}
	topics, orders := d.held()
	if len(topics)+len(d.avoid)+2 > q.dialect.MaxParams() {
		return nil, "", nil, false
	}
	d.busy = true
	if r := d.entering; r != nil && topics[r.topic] == 1 {
		if _, fails := d.avoid[r.topic]; !fails {
			return r, "", nil, true
		}
	}
	query, args = d.condition(q, missing, topics, orders)
	return nil, query, args, true
}

// condition returns the query for the first row behind the lane, or at a position
// that was missing, whose topic, or key, is neither in hand nor known to fail.
func (d *detour) condition(q *statements, missing gaps, inHand, orders map[string]int) (string, []any) {
	var b strings.Builder
	b.WriteString(q.ahead)
	args := []any{d.takenTo, d.takenTo + detourRange}
	if len(missing) > 0 {
		b.WriteString(" OR ")
		writeSpans(&b, missing)
	}
	b.WriteByte(')')
	var topics []any
	for topic := range d.avoid {
		topics = append(topics, topic)
	}
	if len(orders) > 0 && len(orders) <= detourKeys {
		for order := range orders {
			topic, key, _ := strings.Cut(order, "\x00")
			b.WriteString(" AND NOT (topic = ? AND " + q.keyColumn + " = ?)")
			args = append(args, topic, []byte(key))
		}
	} else {
		for topic := range inHand {
			topics = append(topics, topic)
		}
	}
	if len(topics) > 0 {
		b.WriteString(" AND topic NOT IN (?" + strings.Repeat(",?", len(topics)-1) + ")")
		args = append(args, topics...)
	}
	if len(d.sent) > 0 {
		b.WriteString(" AND position NOT IN (-1")
		for p := range d.sent {
			b.WriteByte(',')
			b.WriteString(strconv.FormatInt(p, 10))
		}
		b.WriteByte(')')
	}
	b.WriteString(" ORDER BY position LIMIT 1")
	return q.dialect.Rebind(b.String()), args
}

// end gives the detour free, with the row that was found, if any, and whether it
// was published.
func (d *detour) end(r *row, sent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = false
	d.over.Broadcast()
	switch {
	case sent:
		d.note(r)
	case r != nil:
		if d.avoid == nil {
			d.avoid = map[string]struct{}{}
		}
		d.avoid[r.topic] = struct{}{}
	}
}

// note records a row as published; topics that failed deserve another try.
func (d *detour) note(r *row) {
	clear(d.avoid)
	if r == d.entering {
		d.entering = nil
		d.drop(r)
		return
	}
	if d.sent == nil {
		d.sent = map[int64]struct{}{}
	}
	d.sent[r.position] = struct{}{}
}

// tryAhead publishes a row that nothing in hand stands in the way of, and
// reports whether the broker accepted it. The reader waits meanwhile, so that
// nobody else takes the row up.
func (t *term) tryAhead() (accepted bool) {
	d := &t.detour
	r, query, args, ok := d.begin(&t.box.sql, t.cursor)
	if !ok {
		return false
	}
	defer func() { d.end(r, accepted) }()
	if r == nil {
		var err error
		if r, err = t.readAhead(query, args); err != nil {
			r = nil
			if !errors.Is(err, sql.ErrNoRows) {
				t.databaseError("look for events of other topics", err)
			}
			return false
		}
	}
	m, err := r.message()
	if err != nil || t.held.has(r.order) {
		return false
	}
	m.SetContext(t.publishing)
	if t.call(r.topic, []*message.Message{m}) != nil {
		return false
	}
	t.counters.published.Add(1)
	t.brokerOf(r.topic).health.succeeded(1)
	return true
}

func (t *term) readAhead(query string, args []any) (*row, error) {
	ctx, cancel := context.WithTimeout(t.work, t.cfg.lease/4)
	defer cancel()
	rows, err := t.box.queryRows(ctx, nil, query, args)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, sql.ErrNoRows
	}
	return rows[0], nil
}
