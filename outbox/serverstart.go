package outbox

import (
	"context"
	"database/sql"
	"time"
)

// mysqlStart is for MariaDB and for MySQL, which have the same table under two
// names, and take each other's for a comment. Uptime is counted up to the time that
// UNIX_TIMESTAMP returns, so that the difference does not move, not even if the
// clock is set.
const mysqlStart = `SELECT UNIX_TIMESTAMP() - CAST(VARIABLE_VALUE AS SIGNED)
	FROM /*M! information_schema.GLOBAL_STATUS */ /*!80000 performance_schema.global_status */ WHERE VARIABLE_NAME = 'UPTIME'`

// serverStart returns when the database server began, by its own clock: to the
// microsecond on PostgreSQL, to the second on MySQL. What a server has committed it
// may forget in a crash if it was told not to wait for the disk, or if another
// takes its place. Then the relay must go back to what it has recorded, for it has
// seen positions that will be handed out again.
func (o *Outbox) serverStart(ctx context.Context, tx *sql.Tx) (start time.Time, err error) {
	switch o.sql.dialect {
	case Postgres:
		err = tx.QueryRowContext(ctx, `SELECT pg_postmaster_start_time()`).Scan(&start)
	case MySQL:
		var seconds int64
		err = tx.QueryRowContext(ctx, mysqlStart).Scan(&seconds)
		start = time.Unix(seconds, 0)
	}
	return start, err
}
