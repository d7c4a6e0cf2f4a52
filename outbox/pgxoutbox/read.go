package pgxoutbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-go/millrace/outbox"
)

// reader reads rows from the connection's own memory. Bytes and text are the
// same in PostgreSQL's binary format, and numbers are eight bytes. The modes of pgx
// that are chosen for the sake of poolers fetch text; CacheDescribe names no
// statement either and can fetch binary.
func reader(pool *pgxpool.Pool) outbox.RowReader {
	options := []any{pgx.QueryResultFormats{pgx.BinaryFormatCode}}
	switch pool.Config().ConnConfig.DefaultQueryExecMode {
	case pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol:
		options = append(options, pgx.QueryExecModeCacheDescribe)
	}
	return func(ctx context.Context, query string, args []any, each func(int64, [5][]byte)) error {
		rows, err := pool.Query(ctx, query, append(slices.Clip(options), args...)...)
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
}
