package outbox

import (
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
	if read := o.rowReader(); read != nil {
		err := read(ctx, query, args, func(position int64, columns [5][]byte) {
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

// slab is memory for rows, more at a time as there are more of them. Who keeps one
// event keeps its neighbours in a block.
type slab struct {
	rows  []row
	text  strings.Builder
	bytes []byte
	count int // rows so far
}

const (
	slabRows  = 32
	slabBytes = 16 << 10
)

// row copies a row from the driver's memory: it is what the relay does most.
func (s *slab) row(position int64, columns [5][]byte) *row {
	id, topic, key, metadata, payload := columns[0], columns[1], columns[2], columns[3], columns[4]
	if len(s.rows) == 0 {
		s.rows = make([]row, min(s.count+1, slabRows))
	}
	r := &s.rows[0]
	s.rows = s.rows[1:]

	size := len(topic) + 1 + len(key) + len(id) + len(metadata)
	if size > s.text.Cap()-s.text.Len() {
		s.text = strings.Builder{}
		s.text.Grow(s.block(size))
	}
	before := s.text.Len()
	s.text.Write(topic)
	s.text.WriteByte(0)
	s.text.Write(key)
	s.text.Write(id)
	s.text.Write(metadata)
	text, n, m := s.text.String()[before:], len(topic), len(topic)+1+len(key)
	r.position, r.topic, r.key, r.id, r.metadata = position, text[:n], text[n+1:m], text[m:m+len(id)], text[m+len(id):]
	if len(key) > 0 {
		r.order = text[:m]
	}

	if len(payload) > cap(s.bytes)-len(s.bytes) {
		s.bytes = make([]byte, 0, s.block(len(payload)))
	}
	before = len(s.bytes)
	s.bytes = append(s.bytes, payload...)
	r.payload = s.bytes[before:len(s.bytes):len(s.bytes)]
	s.count++
	return r
}

// block returns how much to allocate for something that no longer fits.
func (s *slab) block(size int) int {
	if size > slabBytes/4 {
		return size
	}
	return max(size, min(s.count*size, slabBytes))
}
