package sqlresilience

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace-go/millrace/internal/dialect"
)

// ErrOutcomeUnknown is in the chain of errors of transactions that may or may not
// have been committed; the error is an *OutcomeUnknownError.
var ErrOutcomeUnknown = errors.New("the outcome of the transaction is unknown")

// OutcomeUnknownError is the error of a transaction whose COMMIT had no answer,
// because the connection was lost or time was up. It may have been committed, and
// what the database did with it does not change any more. It is permanent: nobody
// should run the transaction again without further ado.
//
// What to do: find out, by a row that the transaction writes under an id that its
// caller chose, and run it again only if that is missing; package idempotency does
// so. Or have the transaction do nothing the second time, by a unique key, and run
// it again. Or tell the user.
type OutcomeUnknownError struct {
	Err error // what COMMIT returned
}

// Error says that the transaction may have been committed.
func (e *OutcomeUnknownError) Error() string {
	return fmt.Sprintf("sqlresilience: commit: %v, it may have been committed: %v", ErrOutcomeUnknown, e.Err)
}

// Unwrap returns ErrOutcomeUnknown and the error of COMMIT.
func (e *OutcomeUnknownError) Unwrap() []error { return []error{ErrOutcomeUnknown, e.Err} }

// Permanent returns true: the transaction must not be run again.
func (e *OutcomeUnknownError) Permanent() bool { return true }

// commit commits tx. A context that has ended before is known to have kept it from
// being committed; one that ends during COMMIT is not.
func commit(ctx context.Context, tx *sql.Tx) error {
	if ctx.Err() != nil {
		_ = tx.Rollback()
		return notCommitted(ctx)
	}
	err := tx.Commit()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil: // database/sql has rolled back
		return notCommitted(ctx)
	case errors.Is(err, sql.ErrTxDone):
		err = fmt.Errorf("sqlresilience: commit: %w (by the function that was called within it; it must leave that to its caller)", err)
	case refused(err):
		err = fmt.Errorf("sqlresilience: commit: %w", err)
	default:
		return &OutcomeUnknownError{err}
	}
	return ofFunction(err)
}

func notCommitted(ctx context.Context) error {
	reason, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, reason) {
		return fmt.Errorf("sqlresilience: rolled back: %w", cause)
	}
	return fmt.Errorf("sqlresilience: rolled back: %w: %w", reason, cause)
}

// refused reports whether the answer to COMMIT, an error, is that the transaction
// was not committed. That a driver says nothing was sent does not count: pgx 5.12
// says so when the answer was lost, too.
func refused(err error) bool {
	if s := sqlState(err); s != "" {
		return !slices.Contains([]string{"08", "53", "58", "XX"}, s[:2]) && s[:3] != "57P" && s != "40003"
	}
	if n := number(err); n != 0 {
		return !slices.Contains(cutOff, n) && !slices.Contains(unclear, n)
	}
	return dialect.SQLite.IsBusy(err) || mentionsAny(err, "constraint failed",
		"commit unexpectedly resulted in rollback",             // of pgx
		"could not complete operation in a failed transaction", // of lib/pq
		"Could not complete operation in a failed transaction") // of older ones
}

// unclear are the numbers of other errors of MySQL and MariaDB that leave open
// what became of a COMMIT: a full disk, a failed write, an unknown error, an error
// during COMMIT.
var unclear = []int{1021, 1026, 1105, 1180}
