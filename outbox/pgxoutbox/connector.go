package pgxoutbox

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/millrace-go/millrace/internal/held"
	"github.com/millrace-go/millrace/internal/pgxtx"
)

// Connector saves events their round trips in programs that use pgx through
// database/sql and package outbox. It takes a connector of
// github.com/jackc/pgx/v5/stdlib:
//
//	config, err := pgx.ParseConfig(url)
//	db := sql.OpenDB(pgxoutbox.Connector(stdlib.GetConnector(*config)))
//	box := outbox.New(db, outbox.Postgres)
//
// What is published to [outbox.Outbox.In] in a transaction of db, whoever began it,
// is sent with its COMMIT, or before its next statement. That is where an error of
// writing it shows. A transaction that fails so is rolled back. Events are sent at
// once where pgx is told not to prepare statements, for a pooler, in a transaction
// that has failed already, and where more than 256 KiB are held back.
//
// A tracer of pgx sees neither the INSERT nor the COMMIT that is sent with it, and
// on each new connection an empty query.
//
// Transactions of an inbox of package idempotency in db take no round trip for their
// marks either: these are sent with BEGIN.
//
// Relays of that outbox read events as fast as those of this package, past
// database/sql, which copies each column.
//
// A connection that is taken out of database/sql by sql.Conn.Raw is no
// *stdlib.Conn, but has its method Conn. A connector that wraps connections as well,
// to trace them for instance, is put around this one; relays read as slowly as
// without it then, and if it has a Driver of its own, so do only transactions with
// one event save a round trip. Connecting by any other than one of stdlib fails.
func Connector(c driver.Connector) driver.Connector { return connector{c} }

type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	plain, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	own, ok := plain.(*stdlib.Conn)
	if !ok {
		_ = plain.Close()
		return nil, fmt.Errorf("pgxoutbox: Connector was given a %T, which makes connections of type %T; it takes those of github.com/jackc/pgx/v5/stdlib", c.Connector, plain)
	}
	return &conn{base: own, mode: own.Conn().Config().DefaultQueryExecMode}, nil
}

// Close closes what the connector holds, if it can be closed.
func (c connector) Close() error {
	if closer, ok := c.Connector.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

type base = stdlib.Conn

// conn sends what its transaction holds back before it does anything else.
type conn struct {
	*base
	mode pgx.QueryExecMode // by default
	tx   *pgxtx.Tx         // nil: none is open
}

func (c *conn) flush(ctx context.Context) error {
	if c.tx == nil {
		return nil
	}
	return c.tx.Flush(ctx)
}

// Conn returns the connection, to which its user may send what he likes.
func (c *conn) Conn() *pgx.Conn {
	if c.tx != nil {
		return c.tx.Conn()
	}
	return c.base.Conn()
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.tx != nil {
		if held.Back(ctx, query) {
			return driver.ResultNoRows, c.tx.Hold(ctx, query, valuesOf(args)...)
		}
		if c.tx.BeginsLater() {
			if affected, ok, err := c.tx.BeginWith(ctx, query, valuesOf(args)...); ok {
				return driver.RowsAffected(affected), err
			}
		}
	}
	if err := c.flush(ctx); err != nil {
		return nil, err
	}
	return c.base.ExecContext(ctx, query, args)
}

func valuesOf(args []driver.NamedValue) []any {
	values := make([]any, len(args))
	for i := range args {
		values[i] = args[i].Value
	}
	return values
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.flush(ctx); err != nil {
		return nil, err
	}
	return c.base.QueryContext(ctx, query, args)
}

func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.flush(ctx); err != nil {
		return nil, err
	}
	s, err := c.base.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &stmt{Stmt: s.(*stdlib.Stmt), conn: c}, nil
}

func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	own := c.base.Conn()
	if held.Begin(ctx) && opts == (driver.TxOptions{}) && pgxtx.MayPrepare(own) {
		if own.IsClosed() {
			return nil, driver.ErrBadConn
		}
		tx, err := pgxtx.On(ctx, own)
		if err != nil {
			return nil, err
		}
		tx.BeginLater()
		c.tx = tx
		return &transaction{ctx: ctx, conn: c, tx: tx}, nil
	}
	begun, err := c.base.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	tx, err := pgxtx.On(ctx, own)
	if err != nil {
		_ = begun.Rollback()
		return nil, err
	}
	c.tx = tx
	return &transaction{ctx: ctx, conn: c, tx: tx}, nil
}

// stmt is prepared on conn, and may be older than the transaction that executes it.
type stmt struct {
	*stdlib.Stmt
	conn *conn
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.conn.flush(ctx); err != nil {
		return nil, err
	}
	return s.Stmt.ExecContext(ctx, args)
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.conn.flush(ctx); err != nil {
		return nil, err
	}
	return s.Stmt.QueryContext(ctx, args)
}

// transaction ends the one that is open on conn. Like stdlib's it does so with the
// context that it was begun with, for database/sql has none to give.
type transaction struct {
	ctx  context.Context
	conn *conn
	tx   *pgxtx.Tx
}

func (t *transaction) Commit() error {
	t.conn.tx = nil
	err := t.tx.Commit(t.ctx)
	if c := t.conn.base.Conn(); err != nil && c.PgConn().TxStatus() != 'I' {
		_ = c.Close(t.ctx) // it was not sent, and nobody can roll back any more
	}
	return err
}

func (t *transaction) Rollback() error {
	t.conn.tx = nil
	return t.tx.Rollback(t.ctx)
}
