package outbox

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// detour publishes single rows ahead of their turn. When the relay's hands are
// full of rows that all fail, it can't tell whether the broker is down or
// refuses just their topics, and would never get to the others. So it looks
// further down the log for a row of a topic that it has nothing of in hand:
// publishing that one breaks no order, and if it is accepted the broker is up
// and the failures count.
type detour struct {
	mu       sync.Mutex
	takenTo  int64               // the last position that went into the lane
	entering *row                // the last row, until a worker has it: it may wait for room
	inHand   map[string]int      // rows in the lane that are not settled, by topic
	sent     map[int64]struct{}  // positions behind takenTo that are published
	avoid    map[string]struct{} // topics that failed here too
}

const (
	detourRange = 50_000 // positions to look through
	detourRows  = 200    // published ahead of their turn at most
)

// take records a row that goes into the lane, where it may have to wait for room.
func (d *detour) take(r *row) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.takenTo = r.position
	if _, r.sent = d.sent[r.position]; r.sent {
		delete(d.sent, r.position)
		return
	}
	if d.inHand == nil {
		d.inHand = map[string]int{}
	}
	d.inHand[r.topic]++
	d.entering = r
}

// claim gives a row to a worker, and reports whether it is published already.
func (d *detour) claim(r *row) (sent bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.entering == r {
		d.entering = nil
	}
	return r.sent
}

// settled records that n rows of a topic are out of the relay's hands.
func (d *detour) settled(topic string, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(topic, n)
}

func (d *detour) drop(topic string, n int) {
	if d.inHand[topic] -= n; d.inHand[topic] <= 0 {
		delete(d.inHand, topic)
	}
}

// tryAnotherTopic publishes a row of a topic that nothing in hand belongs to,
// and reports whether the broker accepted it. The lock is held meanwhile, so
// that nobody else takes the row up; a publisher can't reach what needs it.
func (t *term) tryAnotherTopic() bool {
	d := &t.detour
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sent) >= detourRows {
		return false
	}
	r, err := t.findDetour()
	if err != nil {
		if !errors.Is(err, sql.ErrNoRows) {
			t.databaseError("look for events of other topics", err)
		}
		return false
	}
	m, err := r.message()
	if err == nil && !t.held.has(r.order()) {
		m.SetContext(t.publishing)
		err = t.call(r.topic, []*message.Message{m})
		if err == nil {
			d.note(r)
			t.health.succeeded(1)
			return true
		}
	}
	if d.avoid == nil {
		d.avoid = map[string]struct{}{}
	}
	d.avoid[r.topic] = struct{}{}
	return false
}

// note records a row as published; topics that failed deserve another try.
func (d *detour) note(r *row) {
	clear(d.avoid)
	if r == d.entering {
		r.sent, d.entering = true, nil
		d.drop(r.topic, 1)
		return
	}
	if d.sent == nil {
		d.sent = map[int64]struct{}{}
	}
	d.sent[r.position] = struct{}{}
}

// findDetour returns the row that waits for room, or the first one behind it,
// whose topic is neither in hand otherwise nor known to fail.
func (t *term) findDetour() (*row, error) {
	d, q := &t.detour, &t.box.sql
	if r := d.entering; r != nil && d.inHand[r.topic] == 1 {
		if _, fails := d.avoid[r.topic]; !fails {
			return r, nil
		}
	}
	args := []any{d.takenTo, d.takenTo + detourRange}
	for topic := range d.inHand {
		args = append(args, topic)
	}
	for topic := range d.avoid {
		args = append(args, topic)
	}
	topics := len(args) - 2
	for position := range d.sent {
		args = append(args, position)
	}
	if len(args) > q.dialect.MaxParams() {
		return nil, sql.ErrNoRows // far more topics than a relay could tell apart
	}
	query := q.detourHead + marks(topics) + q.detourMiddle + marks(len(d.sent)) + q.detourTail
	ctx, cancel := context.WithTimeout(t.work, t.cfg.lease/4)
	defer cancel()
	r := new(row)
	err := t.box.db.QueryRowContext(ctx, query, args...).Scan(&r.position, &r.id, &r.topic, &r.key, &r.metadata, &r.payload)
	return r, err
}

// marks returns n parameter marks.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }
