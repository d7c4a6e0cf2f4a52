package pgxinbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace-go/millrace/idempotency/internal/marks"
	"github.com/millrace-go/millrace/internal/pgxtx"
)

var errDuplicate = errors.New("handled already")

// begin marks and begins a transaction, in one round trip.
//
// INSERT stands before BEGIN: statements that are sent together are one
// transaction, which BEGIN makes last. If the mark is there its error ends that
// transaction, BEGIN is skipped, and there is nothing to roll back.
func (i *Inbox) begin(ctx context.Context, conn *pgx.Conn, key marks.Key) (*pgxtx.Tx, error) {
	tx, err := pgxtx.On(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("begin the transaction: %w", err)
	}
	var b pgconn.Batch
	if err := i.queue(ctx, conn, &b, key); err != nil {
		return nil, i.state.Explain(err)
	}
	err = conn.PgConn().ExecBatch(ctx, &b).Close()
	pgxtx.CloseIfForgotten(ctx, conn, err)
	switch {
	case i.state.IsDuplicate(err):
		return nil, errDuplicate
	case err != nil:
		return nil, fmt.Errorf("begin the transaction with the mark: %w", i.state.Explain(err))
	}
	return tx, nil
}

var parameterTypes = []uint32{pgtype.TextOID, pgtype.TextOID, pgtype.TextOID, pgtype.Int8OID}

// queue puts INSERT and BEGIN into b, prepared if pgx may prepare statements.
func (i *Inbox) queue(ctx context.Context, conn *pgx.Conn, b *pgconn.Batch, key marks.Key) error {
	values := parameters(key, time.Now().UnixMilli())
	if !pgxtx.MayPrepare(conn) {
		b.ExecParams(i.state.Strict, values, parameterTypes, nil, nil)
		b.ExecParams("begin", nil, nil, nil, nil)
		return nil
	}
	mark, err := conn.Prepare(ctx, i.state.Strict, i.state.Strict)
	if err != nil {
		return err
	}
	begin, err := pgxtx.PrepareBegin(ctx, conn)
	if err != nil {
		return err
	}
	b.ExecPrepared(mark.Name, values, nil, nil)
	b.ExecPrepared(begin.Name, nil, nil, nil)
	return nil
}

// parameters returns the values of a mark in text format, in one piece of memory.
func parameters(key marks.Key, at int64) [][]byte {
	size := len(key.Consumer) + len(key.Source) + len(key.ID)
	b := make([]byte, 0, size+20)
	b = append(b, key.Consumer...)
	b = append(b, key.Source...)
	b = append(b, key.ID...)
	b = strconv.AppendInt(b, at, 10)
	source := len(key.Consumer)
	id := source + len(key.Source)
	return [][]byte{b[:source:source], b[source:id:id], b[id:size:size], b[size:]}
}
