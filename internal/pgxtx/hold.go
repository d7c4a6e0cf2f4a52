package pgxtx

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// statement is one that is held back, its parameters as they are sent.
type statement struct {
	*pgconn.StatementDescription
	values  [][]byte
	formats []int16
}

// maxHeld is how many bytes of parameters are held back at most.
const maxHeld = 256 << 10

// Hold executes a statement that returns nothing, possibly not before the next one
// or the COMMIT is sent, which then reports its error. That it can be prepared is
// known at once. Parameters are copied.
func (tx *Tx) Hold(ctx context.Context, sql string, args ...any) error {
	if tx.closed {
		return pgx.ErrTxClosed
	}
	s := statement{}
	size, ok := sizeOf(args)
	if tx.direct || !ok || tx.bytes+size > maxHeld || tx.conn.Config().DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	}
	var err error
	if s.StatementDescription, err = tx.conn.Prepare(ctx, sql, sql); err != nil {
		return err
	}
	s.values, s.formats = encode(args, size)
	tx.held = append(tx.held, s)
	tx.bytes += size
	return nil
}

// Flush sends what is held back.
func (tx *Tx) Flush(ctx context.Context) error {
	if tx.closed {
		return pgx.ErrTxClosed
	}
	if len(tx.held) == 0 {
		return nil
	}
	b := tx.takeHeld()
	if err := tx.conn.PgConn().ExecBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("a statement that was held back: %w", err)
	}
	return nil
}

func (tx *Tx) takeHeld() *pgconn.Batch {
	b := &pgconn.Batch{}
	for _, s := range tx.held {
		b.ExecPrepared(s.Name, s.values, s.formats, nil)
	}
	tx.held, tx.bytes = nil, 0
	return b
}

// sendCommit sends the COMMIT, behind what is held back.
func (tx *Tx) sendCommit(ctx context.Context) (pgconn.CommandTag, error) {
	if len(tx.held) == 0 || tx.conn.PgConn().TxStatus() != 'T' {
		return tx.conn.Exec(ctx, "commit")
	}
	commit, err := tx.conn.Prepare(ctx, "commit", "commit")
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	b := tx.takeHeld()
	b.ExecPrepared(commit.Name, nil, nil, nil)
	answer := tx.conn.PgConn().ExecBatch(ctx, b)
	var tag pgconn.CommandTag
	for answer.NextResult() {
		tag, _ = answer.ResultReader().Close()
	}
	return tag, answer.Close()
}

const (
	textFormat   = 0
	binaryFormat = 1
	arrayHead    = 20
)

// sizeOf returns how many bytes parameters take, or false if there are some that
// encode does not know.
func sizeOf(args []any) (size int, ok bool) {
	for _, arg := range args {
		switch v := arg.(type) {
		case string:
			size += len(v)
		case []byte:
			size += len(v)
		case int64:
			size += 8
		case [][]byte:
			size += arrayHead + 4*len(v)
			for _, b := range v {
				size += len(b)
			}
		case []int64:
			size += arrayHead + 12*len(v)
		default:
			return 0, false
		}
	}
	return size, true
}

// encode writes parameters as PostgreSQL reads them, in one piece of memory.
func encode(args []any, size int) (values [][]byte, formats []int16) {
	values, formats = make([][]byte, len(args)), make([]int16, len(args))
	all := make([]byte, 0, size)
	for i, arg := range args {
		from := len(all)
		formats[i] = binaryFormat
		switch v := arg.(type) {
		case string:
			formats[i] = textFormat
			all = append(all, v...)
		case []byte:
			all = append(all, v...)
		case int64:
			all = binary.BigEndian.AppendUint64(all, uint64(v))
		case [][]byte:
			all = appendHead(all, pgtype.ByteaOID, len(v))
			for _, b := range v {
				all = append(binary.BigEndian.AppendUint32(all, uint32(len(b))), b...)
			}
		case []int64:
			all = appendHead(all, pgtype.Int8OID, len(v))
			for _, n := range v {
				all = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(all, 8), uint64(n))
			}
		}
		values[i] = all[from:len(all):len(all)]
	}
	return values, formats
}

// appendHead begins an array of one dimension without NULLs, counted from 1.
func appendHead(b []byte, element uint32, n int) []byte {
	for _, v := range [5]uint32{1, 0, element, uint32(n), 1} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}
