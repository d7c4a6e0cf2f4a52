package pgxinbox

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// transaction is a pgx.Tx that was begun by hand. The embedded one belongs to
// the connection, is never ended, and does the work.
type transaction struct {
	pgx.Tx
	closed bool
}

// transactionOf returns the transaction that has been begun on conn.
func transactionOf(ctx context.Context, conn *pgx.Conn) (*transaction, error) {
	const name = "millrace.pgxinbox"
	data := conn.PgConn().CustomData()
	if base, ok := data[name].(pgx.Tx); ok {
		return &transaction{Tx: base}, nil
	}
	// pgx makes a Tx only by a round trip, so one is made for each connection, by a
	// query that begins nothing.
	base, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: "-- " + name})
	if err != nil {
		return nil, err
	}
	data[name] = base
	return &transaction{Tx: base}, nil
}

func (tx *transaction) Commit(ctx context.Context) error {
	if tx.closed {
		return pgx.ErrTxClosed
	}
	tag, err := tx.Conn().Exec(ctx, "commit")
	if err != nil && tx.Conn().PgConn().TxStatus() == 'T' && ctx.Err() != nil {
		return err // it was not sent
	}
	tx.closed = true
	if err != nil {
		if tx.Conn().PgConn().TxStatus() != 'I' {
			_ = tx.Conn().Close(ctx)
		}
		return err
	}
	if tag.String() == "ROLLBACK" {
		return pgx.ErrTxCommitRollback
	}
	return nil
}

func (tx *transaction) Rollback(ctx context.Context) error {
	if tx.closed {
		return pgx.ErrTxClosed
	}
	tx.closed = true
	_, err := tx.Conn().Exec(ctx, "rollback")
	if err != nil {
		_ = tx.Conn().Close(ctx)
	}
	return err
}

// rollback goes on when ctx has ended, for a while.
func rollback(ctx context.Context, tx pgx.Tx) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return tx.Rollback(ctx)
}

func (tx *transaction) Begin(ctx context.Context) (pgx.Tx, error) {
	if tx.closed {
		return nil, pgx.ErrTxClosed
	}
	return tx.Tx.Begin(ctx)
}

func (tx *transaction) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if tx.closed {
		return 0, pgx.ErrTxClosed
	}
	return tx.Tx.CopyFrom(ctx, table, columns, rows)
}

func (tx *transaction) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	if tx.closed {
		return pgx.FailedBatchResults(b, pgx.ErrTxClosed)
	}
	return tx.Tx.SendBatch(ctx, b)
}

func (tx *transaction) Prepare(ctx context.Context, name, sql string) (*pgconn.StatementDescription, error) {
	if tx.closed {
		return nil, pgx.ErrTxClosed
	}
	return tx.Tx.Prepare(ctx, name, sql)
}

func (tx *transaction) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if tx.closed {
		return pgconn.CommandTag{}, pgx.ErrTxClosed
	}
	return tx.Tx.Exec(ctx, sql, args...)
}

func (tx *transaction) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if tx.closed {
		return failedRows{}, pgx.ErrTxClosed
	}
	return tx.Tx.Query(ctx, sql, args...)
}

func (tx *transaction) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if tx.closed {
		return failedRows{}
	}
	return tx.Tx.QueryRow(ctx, sql, args...)
}

// failedRows are the rows of a query on a closed transaction.
type failedRows struct{ pgx.Rows }

func (failedRows) Close()                        {}
func (failedRows) Err() error                    { return pgx.ErrTxClosed }
func (failedRows) CommandTag() pgconn.CommandTag { return pgconn.CommandTag{} }
func (failedRows) FieldDescriptions() []pgconn.FieldDescription {
	return nil
}
func (failedRows) Next() bool             { return false }
func (failedRows) Scan(...any) error      { return pgx.ErrTxClosed }
func (failedRows) Values() ([]any, error) { return nil, pgx.ErrTxClosed }
func (failedRows) RawValues() [][]byte    { return nil }
func (failedRows) Conn() *pgx.Conn        { return nil }
