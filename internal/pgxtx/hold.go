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
	add(tx.held, prepared, size, args)
	tx.bytes += size
	return nil
}

// add adds the execution of a statement to a batch, which copies the parameters.
func add(b *pgconn.Batch, prepared *pgconn.StatementDescription, size int, args []any) {
	space := scratch.Get().(*[]byte)
	*space = slices.Grow((*space)[:0], size)
	values, formats := encode(*space, args)
	b.ExecPrepared(prepared.Name, values, formats, nil)
	scratch.Put(space)
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
	if err := tx.usable(); err != nil {
		return err
	}
	if tx.unsent {
		if _, err := tx.conn.Exec(ctx, "begin"); err != nil {
			return err
		}
		tx.unsent = false
	}
	if tx.held == nil {
		return nil
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

// BeginLater has a transaction that its owner has not begun begin with its first
// statement, on a connection that may prepare statements.
func (tx *Tx) BeginLater() { tx.unsent = true }

// BeginsLater reports whether BEGIN has not been sent yet.
func (tx *Tx) BeginsLater() bool { return tx.unsent && !tx.closed }

// BeginWith begins a transaction with a statement, in one round trip. It does
// nothing and reports false if the transaction has begun, or parameters are not
// known here. What has none may be several statements, which can't be prepared.
func (tx *Tx) BeginWith(ctx context.Context, sql string, args ...any) (affected int64, ok bool, err error) {
	size, ok := sizeOf(args)
	if !ok || len(args) == 0 || !tx.BeginsLater() || tx.broken != nil || tx.conn.PgConn().IsBusy() || ctx.Err() != nil {
		return 0, false, nil
	}
	statement, err := tx.conn.Prepare(ctx, sql, sql)
	if err != nil {
		return 0, true, err
	}
	begin, err := PrepareBegin(ctx, tx.conn)
	if err != nil {
		return 0, true, err
	}
	b := &pgconn.Batch{}
	b.ExecPrepared(begin.Name, nil, nil, nil)
	add(b, statement, size, args)
	tag, err := execAll(ctx, tx.conn, b)
	tx.unsent = err != nil && tx.conn.PgConn().TxStatus() == idle // the context ended just now
	return tag.RowsAffected(), true, err
}

// PrepareBegin prepares BEGIN. It has not its text for a name, as the COMMIT has not:
// pgx would use it for those of others.
func PrepareBegin(ctx context.Context, conn *pgx.Conn) (*pgconn.StatementDescription, error) {
	return conn.Prepare(ctx, "millrace_begin", "begin")
}

// execAll returns what the server says of the last statement of a batch.
func execAll(ctx context.Context, conn *pgx.Conn, b *pgconn.Batch) (tag pgconn.CommandTag, err error) {
	answer := conn.PgConn().ExecBatch(ctx, b)
	for answer.NextResult() {
		tag, _ = answer.ResultReader().Close()
	}
	err = answer.Close()
	CloseIfForgotten(ctx, conn, err)
	return tag, err
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
	commit, err := tx.conn.Prepare(ctx, "millrace_commit", "commit")
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	b := tx.takeHeld()
	b.ExecPrepared(commit.Name, nil, nil, nil)
	return execAll(ctx, tx.conn, b)
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
