package outbox

import (
	"context"
	"fmt"
)

// RowReader executes a query that returns a position and five columns of bytes
// or text, and calls each for every row in its order. The columns are valid until
// each returns.
type RowReader func(ctx context.Context, query string, args []any, each func(position int64, columns [5][]byte)) error

// ReadBy has relays read events by something faster than database/sql, which
// copies each column; package pgxoutbox does so. It must be safe for concurrent
// use.
func ReadBy(read RowReader) Option { return func(c *config) { c.readBy = read } }

// rowQuerier is a connection of database/sql that is a RowReader itself, as those of
// pgxoutbox.Connector are.
type rowQuerier interface {
	QueryRows(ctx context.Context, query string, args []any, each func(position int64, columns [5][]byte)) error
}

// rowReader returns what reads faster than database/sql, or nil.
func (o *Outbox) rowReader() RowReader {
	switch {
	case o.readBy != nil:
		return o.readBy
	case o.connsRead.Load():
		return o.readByConn
	}
	return nil
}

// findRowReader looks whether connections of the database read rows themselves.
func (o *Outbox) findRowReader(ctx context.Context) {
	if o.readBy != nil || o.sql.dialect != Postgres {
		return
	}
	_ = o.onConn(ctx, func(conn any) error { // without a connection it stays as it was
		_, ok := conn.(rowQuerier)
		o.connsRead.Store(ok)
		return nil
	})
}

func (o *Outbox) readByConn(ctx context.Context, query string, args []any, each func(position int64, columns [5][]byte)) error {
	return o.onConn(ctx, func(conn any) error {
		own, ok := conn.(rowQuerier)
		if !ok {
			return fmt.Errorf("outbox: a connection of type %T among those of pgxoutbox.Connector", conn)
		}
		return own.QueryRows(ctx, query, args, each)
	})
}

func (o *Outbox) onConn(ctx context.Context, f func(conn any) error) error {
	conn, err := o.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // gives it back
	return conn.Raw(f)
}
