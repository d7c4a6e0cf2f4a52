package outbox

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"strings"
)

// row is an event of the log in the relay's hands.
type row struct {
	position       int64
	id, topic, key string
	order          string // the key by which the dispatcher keeps rows in order
	metadata       string
	payload        []byte
	tries          tries
	place          int  // among the rows in hand, see detour
	gone           bool // out of the relay's hands: published or parked
}

// queryRows returns the rows of a query for position, id, topic, key, metadata and
// payload.
func (o *Outbox) queryRows(ctx context.Context, into []*row, query string, args []any) ([]*row, error) {
	var space slab
	if o.readBy != nil {
		err := o.readBy(ctx, query, args, func(position int64, columns [5][]byte) {
			into = append(into, space.row(position, columns))
		})
		return into, err
	}
	rows, err := o.db.QueryContext(ctx, query, args...)
	if err != nil {
		return into, err
	}
	defer rows.Close()
	var position int64
	var id, topic, key, metadata, payload sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&position, &id, &topic, &key, &metadata, &payload); err != nil {
			return into, err
		}
		into = append(into, space.row(position, [5][]byte{id, topic, key, metadata, payload}))
	}
	return into, errors.Join(rows.Err(), rows.Close())
}

// slab is memory for rows, a few at a time, more as there are more.
type slab struct {
	free []row
	next int
}

const slabRows = 32

func (s *slab) alloc() *row {
	if len(s.free) == 0 {
		s.next = min(max(1, 2*s.next), slabRows)
		s.free = make([]row, s.next)
	}
	r := &s.free[0]
	s.free = s.free[1:]
	return r
}

// row copies a row from the driver's memory, in two pieces: it is what the relay
// does most.
func (s *slab) row(position int64, columns [5][]byte) *row {
	id, topic, key, metadata, payload := columns[0], columns[1], columns[2], columns[3], columns[4]
	var text strings.Builder
	text.Grow(len(topic) + 1 + len(key) + len(id) + len(metadata))
	text.Write(topic)
	text.WriteByte(0)
	text.Write(key)
	text.Write(id)
	text.Write(metadata)
	all, n := text.String(), len(topic)
	m := n + 1 + len(key)
	r := s.alloc()
	r.position = position
	r.topic, r.key, r.id, r.metadata = all[:n], all[n+1:m], all[m:m+len(id)], all[m+len(id):]
	if len(key) > 0 {
		r.order = all[:m]
	}
	if r.payload = bytes.Clone(payload); r.payload == nil {
		r.payload = []byte{}
	}
	return r
}
