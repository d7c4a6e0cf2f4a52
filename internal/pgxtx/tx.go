// Package pgxtx is a pgx.Tx that can hold statements back until the next one, or
// the COMMIT, is sent, to save a round trip.
package pgxtx

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Tx is a transaction that was begun by its owner. The embedded one does the work
// and is never ended.
type Tx struct {
	pgx.Tx
	conn   *pgx.Conn
	held   *pgconn.Batch // nil: nothing
	broken error         // something that was held back is lost
	unsent bool          // BEGIN is held back, too
	bytes  int           // of their parameters
	direct bool          // nothing is held back any more
	closed bool
}

// New returns the transaction that has been begun on the connection of base.
func New(base pgx.Tx) *Tx { return &Tx{Tx: base, conn: base.Conn()} }

// On returns the transaction that has been, or will be, begun on conn by a
// statement of its owner.
func On(ctx context.Context, conn *pgx.Conn) (*Tx, error) {
	const name = "millrace.pgxtx"
	data := conn.PgConn().CustomData()
	if base, ok := data[name].(pgx.Tx); ok {
		return New(base), nil
	}
	// pgx makes a Tx only by a round trip, so one is made for each connection, by a
	// query that begins nothing.
	base, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: "-- " + name})
	if err != nil {
		return nil, err
	}
	data[name] = base
	return New(base), nil
}

// usable returns why the transaction can't be used any more.
func (tx *Tx) usable() error {
	if tx.closed {
		return pgx.ErrTxClosed
	}
	return tx.broken
}

// Commit sends what was held back along with the COMMIT. It does nothing if ctx has
// ended; all other errors end the transaction.
func (tx *Tx) Commit(ctx context.Context) error {
	if tx.closed {
		return pgx.ErrTxClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if tx.broken != nil {
		_ = tx.Rollback(ctx)
		return tx.broken
	}
	if tx.unsent {
		tx.closed = true
		return nil
	}
	tag, err := tx.sendCommit(ctx)
	tx.closed, tx.held = true, nil
	if err != nil {
		tx.undo(ctx)
		return err
	}
	if tag.String() == "ROLLBACK" {
		return pgx.ErrTxCommitRollback
	}
	return nil
}

// undo makes sure that nothing of a transaction is left whose COMMIT has failed.
func (tx *Tx) undo(ctx context.Context) {
	if tx.conn.PgConn().TxStatus() == failed {
		_, _ = tx.conn.Exec(ctx, "rollback")
	}
	if tx.conn.PgConn().TxStatus() != idle {
		_ = tx.conn.Close(ctx)
	}
}

// Rollback forgets what was held back.
func (tx *Tx) Rollback(ctx context.Context) error {
	if tx.closed {
		return pgx.ErrTxClosed
	}
	tx.closed, tx.held = true, nil
	if tx.unsent {
		return nil
	}
	_, err := tx.conn.Exec(ctx, "rollback")
	if err != nil {
		_ = tx.conn.Close(ctx)
	}
	return err
}

// Begin begins a nested transaction. It sends its statements by itself, so from
// then on nothing is held back here: what is rolled back with it would survive.
func (tx *Tx) Begin(ctx context.Context) (pgx.Tx, error) {
	if err := tx.Flush(ctx); err != nil {
		return nil, err
	}
	tx.direct = true
	return tx.Tx.Begin(ctx)
}

// Conn returns the connection, to which its user may send what he likes.
func (tx *Tx) Conn() *pgx.Conn {
	if !tx.closed && !tx.direct {
		// What its user does next may rely on it. So if it can't be sent, which has no
		// other way of being told, nothing is committed.
		if err := tx.Flush(context.Background()); err != nil {
			tx.broken = err
		}
		tx.direct = true
	}
	return tx.conn
}

// LargeObjects returns access to large objects.
func (tx *Tx) LargeObjects() pgx.LargeObjects {
	_ = tx.Conn() // which they are sent to
	return tx.Tx.LargeObjects()
}

// CopyFrom is that of pgx.Tx.
func (tx *Tx) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if err := tx.Flush(ctx); err != nil {
		return 0, err
	}
	return tx.Tx.CopyFrom(ctx, table, columns, rows)
}

// SendBatch is that of pgx.Tx.
func (tx *Tx) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if err := tx.Flush(ctx); err != nil {
		return pgx.FailedBatchResults(b, err)
	}
	return tx.Tx.SendBatch(ctx, b)
}

// Prepare is that of pgx.Tx.
func (tx *Tx) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if err := tx.Flush(ctx); err != nil {
		return nil, err
	}
	return tx.Tx.Prepare(ctx, name, sql)
}

// Exec is that of pgx.Tx.
func (tx *Tx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := tx.Flush(ctx); err != nil {
		return pgconn.CommandTag{}, err
	}
	return tx.Tx.Exec(ctx, sql, args...)
}

// Query is that of pgx.Tx.
func (tx *Tx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := tx.Flush(ctx); err != nil {
		return failedRows{err: err}, err
	}
	return tx.Tx.Query(ctx, sql, args...)
}

// QueryRow is that of pgx.Tx.
func (tx *Tx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if err := tx.Flush(ctx); err != nil {
		return failedRows{err: err}
	}
	return tx.Tx.QueryRow(ctx, sql, args...)
}

// failedRows are the rows of a query that was not sent.
type failedRows struct {
	pgx.Rows
	err error
}

func (failedRows) Close()                        {}
func (r failedRows) Err() error                  { return r.err }
func (failedRows) CommandTag() pgconn.CommandTag { return pgconn.CommandTag{} }
func (failedRows) FieldDescriptions() []pgconn.FieldDescription {
	return nil
}
func (failedRows) Next() bool               { return false }
func (r failedRows) Scan(...any) error      { return r.err }
func (r failedRows) Values() ([]any, error) { return nil, r.err }
func (failedRows) RawValues() [][]byte      { return nil }
func (failedRows) Conn() *pgx.Conn          { return nil }
