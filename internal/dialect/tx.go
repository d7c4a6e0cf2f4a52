package dialect

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Transact runs fn in a transaction that writes, and commits it. If fn returns
// an error, or panics, the transaction is rolled back; the error is returned as
// it is. Errors of the database at begin and commit say so.
func (d Dialect) Transact(ctx context.Context, db *sql.DB, fn func(*sql.Tx) error) error {
	return d.transact(ctx, db, nil, fn)
}

// ReadCommitted is Transact for statements of the library's own, at the
// isolation level of the name where the database has it. Ranges that MySQL
// deletes are not locked against inserts then.
func (d Dialect) ReadCommitted(ctx context.Context, db *sql.DB, fn func(*sql.Tx) error) error {
	if d == SQLite {
		return d.transact(ctx, db, nil, fn)
	}
	return d.transact(ctx, db, &sql.TxOptions{Isolation: sql.LevelReadCommitted}, fn)
}

// conflictTries is how often Retry calls a function at most.
const conflictTries = 10

// Retry calls fn, which runs a transaction, again as long as the database rolls
// it back because of another one, up to ten times in all.
func (d Dialect) Retry(ctx context.Context, fn func() error) error {
	for try := 1; ; try++ {
		err := fn()
		if err == nil || try == conflictTries || !d.IsConflict(err) {
			return err
		}
		longest := time.Millisecond << min(try, 6)
		if !Sleep(ctx, longest/2+rand.N(longest)) {
			return err
		}
	}
}

func (d Dialect) transact(ctx context.Context, db *sql.DB, opts *sql.TxOptions, fn func(*sql.Tx) error) error {
	done, err := d.Turn(ctx, db)
	if err != nil {
		return fmt.Errorf("wait to begin the transaction: %w", err)
	}
	defer done()
	tx, err := db.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("begin the transaction: %w", err)
	}
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit as in a failing test
			_ = tx.Rollback()
		}
	}()
	err = fn(tx)
	returned = true
	if err != nil {
		if undo := tx.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
			return errors.Join(err, fmt.Errorf("roll back: %w", undo))
		}
		return err
	}
	switch err := tx.Commit(); {
	case err != nil && ctx.Err() != nil: // database/sql may have rolled back already
		return fmt.Errorf("commit: %w", context.Cause(ctx))
	case errors.Is(err, sql.ErrTxDone):
		return fmt.Errorf("commit: %w (by the function that was called within it; it must leave that to its caller)", err)
	case err != nil:
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
