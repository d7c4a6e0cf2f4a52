package pgxoutbox

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-go/millrace/outbox"
)

func reader(pool *pgxpool.Pool) outbox.RowReader {
	mode := pool.Config().ConnConfig.DefaultQueryExecMode
	return func(ctx context.Context, query string, args []any, each func(int64, [5][]byte)) error {
		return readRows(ctx, pool, mode, query, args, each)
	}
}

// QueryRows lets the relay of an outbox on database/sql read as fast as one on pgx.
func (c *conn) QueryRows(ctx context.Context, query string, args []any, each func(position int64, columns [5][]byte)) error {
	return readRows(ctx, c.base.Conn(), c.mode, query, args, each)
}

type querier interface {
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
}

// readRows reads rows from the connection's own memory. Bytes and text are the
// same in PostgreSQL's binary format, and numbers are eight bytes. The modes of pgx
// that are chosen for the sake of poolers fetch text; CacheDescribe names no
// statement either and can fetch binary.
func readRows(ctx context.Context, by querier, mode pgx.QueryExecMode, query string, args []any, each func(int64, [5][]byte)) error {
	all := make([]any, 0, 2+len(args))
	all = append(all, pgx.QueryResultFormats{pgx.BinaryFormatCode})
	switch mode {
	case pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol:
		all = append(all, pgx.QueryExecModeCacheDescribe)
	}
	rows, err := by.Query(ctx, query, append(all, args...)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for _, f := range rows.FieldDescriptions() {
		if f.Format != pgx.BinaryFormatCode {
			return fmt.Errorf("pgxoutbox: column %s comes as text", f.Name)
		}
	}
	for rows.Next() {
		v := rows.RawValues()
		if len(v) != 6 || len(v[0]) != 8 {
			return fmt.Errorf("pgxoutbox: a row of %d columns, the first of %d bytes, instead of six and eight", len(v), len(v[0]))
		}
		each(int64(binary.BigEndian.Uint64(v[0])), [5][]byte(v[1:]))
	}
	return rows.Err()
}
