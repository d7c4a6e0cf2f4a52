package outbox

import (
	"context"
	"database/sql"
	"time"
)

// incarnation is one life of a database server. What a server has committed it
// may forget in a crash if it was told not to wait for the disk, or if another
// takes its place. Then the relay must go back to what it has recorded, for it has
// seen positions that will be handed out again.
type incarnation struct {
	started time.Time // by the server's clock; PostgreSQL
	asked   time.Time // by this process; MySQL
	uptime  time.Duration
}

// incarnation asks the server.
func (o *Outbox) incarnation(ctx context.Context, tx *sql.Tx) (i incarnation, err error) {
	switch o.sql.dialect {
	case Postgres:
		err = tx.QueryRowContext(ctx, `SELECT pg_postmaster_start_time()`).Scan(&i.started)
	case MySQL:
		var name string
		var seconds int64
		i.asked = time.Now()
		err = tx.QueryRowContext(ctx, `SHOW GLOBAL STATUS LIKE 'Uptime'`).Scan(&name, &seconds)
		i.uptime = time.Duration(seconds) * time.Second
	}
	return i, err
}

// uptimeSlack is how far a server's count of seconds may be off.
const uptimeSlack = 3 * time.Second

// same reports whether a later answer is of the same life.
func (i incarnation) same(later incarnation) bool {
	return i.started.Equal(later.started) && later.uptime >= i.uptime+later.asked.Sub(i.asked)-uptimeSlack
}
