package pgxtx

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// maxHeld is how many bytes of parameters are held back at most.
const maxHeld = 256 << 10

// Hold executes a statement that returns nothing, possibly not before the next one
// or the COMMIT is sent, which then reports its error. That it can be prepared is
// known at once. Parameters are copied.
func (tx *Tx) Hold(ctx context.Context, sql string, args ...any) error {
	if err := tx.usable(); err != nil {
		return err
	}
	size, ok := sizeOf(args)
	if tx.direct || !ok || tx.bytes+size > maxHeld || tx.conn.PgConn().TxStatus() != inTransaction || !MayPrepare(tx.conn) {
		_, err := tx.Exec(ctx, sql, args...)
		return err
	}
	prepared, err := tx.conn.Prepare(ctx, sql, sql)
	if err != nil {
		return err
	}
	if tx.held == nil {
		tx.held = &pgconn.Batch{}
	}
	space := scratch.Get().(*[]byte)
	*space = slices.Grow((*space)[:0], size)
	values, formats := encode(*space, args)
	tx.held.ExecPrepared(prepared.Name, values, formats, nil) // which copies them
	scratch.Put(space)
	tx.bytes += size
	return nil
}

// scratch is where parameters are encoded.
var scratch = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// What the server says of a transaction.
const (
	idle          = 'I'
	inTransaction = 'T'
	failed        = 'E'
)

// MayPrepare reports whether statements may be prepared on a connection. Its
// configuration is copied as a whole when it is asked for.
func MayPrepare(conn *pgx.Conn) bool {
	const name = "millrace.prepares"
	data := conn.PgConn().CustomData()
	may, known := data[name].(bool)
	if !known {
		may = conn.Config().DefaultQueryExecMode == pgx.QueryExecModeCacheStatement
		data[name] = may
	}
	return may
}

// Flush sends what is held back. If that can't be sent now, for the context has
// ended or rows are being read, it stays held back.
func (tx *Tx) Flush(ctx context.Context) error {
	if err := tx.usable(); err != nil || tx.held == nil {
		return err
	}
	err := ctx.Err()
	switch {
	case err != nil:
	case tx.conn.PgConn().IsBusy():
		err = errors.New("conn busy")
	default:
		err = tx.conn.PgConn().ExecBatch(ctx, tx.takeHeld()).Close()
		CloseIfForgotten(ctx, tx.conn, err)
		if err != nil && tx.conn.PgConn().TxStatus() == inTransaction {
			tx.broken = err // the server knows nothing of it: the context ended just now
		}
	}
	if err != nil {
		return fmt.Errorf("a statement that was held back: %w", err)
	}
	return nil
}

func (tx *Tx) takeHeld() *pgconn.Batch {
	b := tx.held
	tx.held, tx.bytes = nil, 0
	return b
}

// CloseIfForgotten closes a connection whose server does not know what was prepared
// on it, as after DISCARD ALL: pgx would never prepare it again.
func CloseIfForgotten(ctx context.Context, conn *pgx.Conn, err error) {
	var answer *pgconn.PgError
	if errors.As(err, &answer) && answer.Code == "26000" {
		_ = conn.Close(ctx)
	}
}

// sendCommit sends the COMMIT, behind what is held back.
func (tx *Tx) sendCommit(ctx context.Context) (pgconn.CommandTag, error) {
	if tx.held == nil || tx.conn.PgConn().TxStatus() == failed {
		return tx.conn.Exec(ctx, "commit")
	}
	const name = "millrace_commit" // not its text: pgx would use it for the COMMIT of others
	commit, err := tx.conn.Prepare(ctx, name, "commit")
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
	err = answer.Close()
	CloseIfForgotten(ctx, tx.conn, err)
	return tag, err
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

// encode writes parameters as PostgreSQL reads them into the space behind all, which
// is large enough.
func encode(all []byte, args []any) (values [][]byte, formats []int16) {
	values, formats = make([][]byte, len(args)), make([]int16, len(args))
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
