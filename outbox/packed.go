package outbox

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
)

// A driver of database/sql copies every column of a row into memory of its own. So
// PostgreSQL is asked to put the columns of a row into one.

// packed returns a query of the log whose rows are one column each: the position,
// the lengths of four columns, and all five of them.
func packed(query string) string {
	return `SELECT int8send(position) || int4send(length(id)) || int4send(length(textsend(topic))) || int4send(length(key)) || int4send(length(metadata))
		|| id || textsend(topic) || key || metadata || payload FROM (` + query + `
		) AS e(position, id, topic, key, metadata, payload)`
}

const packedHead = 8 + 4*4

var errPacked = errors.New("a row of the log can't be unpacked")

// queryPacked returns the rows of a query made by packed.
func (o *Outbox) queryPacked(ctx context.Context, into []*row, query string, args []any) ([]*row, error) {
	rows, err := o.db.QueryContext(ctx, query, args...)
	if err != nil {
		return into, err
	}
	defer rows.Close()
	var space slab
	var raw sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&raw); err != nil {
			return into, err
		}
		position, columns, err := unpack(raw)
		if err != nil {
			return into, err
		}
		into = append(into, space.row(position, columns))
	}
	return into, errors.Join(rows.Err(), rows.Close())
}

func unpack(b []byte) (position int64, columns [5][]byte, err error) {
	if len(b) < packedHead {
		return 0, columns, errPacked
	}
	head, rest := b[:packedHead], b[packedHead:]
	for i := range columns[:4] {
		n := int64(binary.BigEndian.Uint32(head[8+4*i:]))
		if n > int64(len(rest)) {
			return 0, columns, errPacked
		}
		columns[i], rest = rest[:n], rest[n:]
	}
	columns[4] = rest
	return int64(binary.BigEndian.Uint64(head)), columns, nil
}
