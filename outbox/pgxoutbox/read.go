package pgxoutbox

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-go/millrace/outbox"
)

// reader reads rows from the connection's own memory. Bytes and text are the
// same in PostgreSQL's binary format, and numbers are eight bytes.
func reader(pool *pgxpool.Pool) outbox.RowReader {
	return func(ctx context.Context, query string, args []any, each func(int64, [5][]byte)) error {
		rows, err := pool.Query(ctx, query, append([]any{pgx.QueryResultFormats{pgx.BinaryFormatCode}}, args...)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			v := rows.RawValues()
			if len(v) != 6 || len(v[0]) != 8 {
				return fmt.Errorf("pgxoutbox: a row of %d columns, the first of %d bytes, instead of six and eight", len(v), len(v[0]))
			}
			each(int64(binary.BigEndian.Uint64(v[0])), [5][]byte(v[1:]))
		}
		return rows.Err()
	}
}
