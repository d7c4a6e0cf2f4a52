package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// prepare compiles the statement for a single event, a fifth of the cost of
// publishing one, where no transaction of the caller can be holding the only
// connection. If it fails the statement is used as text. On PostgreSQL pgx does it
// by itself, and poolers may not know what was prepared.
func (o *Outbox) prepare(ctx context.Context) {
	if o.one.Load() != nil || o.unprepared.Load() || o.sql.dialect == Postgres {
		return
	}
	s, err := o.db.PrepareContext(ctx, o.sql.insert.one)
	if err != nil {
		return // what is wrong will be reported by whoever uses the table
	}
	o.one.Store(s) // one that another goroutine has stored stays usable until the database is closed
}

// execute executes a statement, the one for a single event prepared if possible.
// The transaction may be one of another sql.DB on the same database, such as a
// pool of readers; then preparing is given up.
func (o *Outbox) execute(ctx context.Context, tx *sql.Tx, statement string, args []any) error {
	prepared := o.one.Load()
	if statement != o.sql.insert.one || prepared == nil || o.unprepared.Load() {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	}
	own := tx.StmtContext(ctx, prepared) //nolint:sqlclosecheck // it ends with the transaction
	_, err := own.ExecContext(ctx, args...)
	if err != nil && strings.Contains(err.Error(), "statement from different database") {
		o.unprepared.Store(true)
		_, err = tx.ExecContext(ctx, statement, args...)
	}
	return err
}

// isPgx reports whether a database is used through pgx, which prepares
// statements by itself and takes slices as arrays.
func isPgx(db *sql.DB) bool { return fmt.Sprintf("%T", db.Driver()) == "*stdlib.Driver" }
