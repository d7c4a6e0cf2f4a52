package sqlresilience

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/millrace-go/millrace/resilience"
)

// Transact runs fn in a transaction and commits it, through the policy: each
// attempt is a transaction of its own, from BEGIN to COMMIT. If fn returns an
// error, or panics, the transaction is rolled back. fn must use the context and the
// transaction that it is given, leave its end to Transact, and have no effects
// elsewhere, for it may be called again.
//
// An error of fn that is not one of the database is returned as it is and not
// tried again, unless it is marked: see Classify, and resilience.AsThrottled for
// one that is to be tried again. For a COMMIT without an answer see
// OutcomeUnknownError.
//
// There is one attempt at a time: those that a Hedge begins beside it do nothing.
// The policy should have a Retry whose Backoff has a Base of some milliseconds,
// the time of a transaction. opts may be nil.
func Transact(ctx context.Context, db *sql.DB, policy resilience.Policy, opts *sql.TxOptions, fn func(ctx context.Context, tx *sql.Tx) error) error {
	t := &transaction{db: db, opts: opts, fn: fn}
	return t.outcome(policy.Do(ctx, t.attempt))
}

// transaction is one call of Transact with all its attempts.
type transaction struct {
	db   *sql.DB
	opts *sql.TxOptions
	fn   func(ctx context.Context, tx *sql.Tx) error

	running   atomic.Bool // guards what follows
	committed bool
	unknown   error
}

// attempt is the function that the policy calls.
func (t *transaction) attempt(ctx context.Context) error {
	if !t.running.CompareAndSwap(false, true) {
		return errNotAgain
	}
	defer t.running.Store(false)
	if t.committed || t.unknown != nil {
		return errNotAgain
	}
	err := t.run(ctx)
	t.committed = err == nil
	if errors.Is(err, ErrOutcomeUnknown) {
		t.unknown = err
	}
	return err
}

// errNotAgain answers a policy that asks for a transaction beside one, or after
// one that may have been committed. It counts for nothing and is not tried again.
var errNotAgain error = &classed{errors.New("sqlresilience: the transaction must not be run again"), resilience.Cancelled}

func (t *transaction) run(ctx context.Context) error {
	tx, err := t.db.BeginTx(ctx, t.opts)
	if err != nil {
		return AsClass(fmt.Errorf("sqlresilience: begin: %w", err))
	}
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit as in a failing test
			_ = tx.Rollback()
		}
	}()
	err = t.fn(ctx, tx)
	returned = true
	if err != nil {
		_ = tx.Rollback() // if that fails the connection is gone, and the transaction with it
		return ofFunction(err)
	}
	return commit(ctx, tx)
}

// outcome is what the caller gets.
func (t *transaction) outcome(err error) error {
	if t.unknown != nil && !errors.Is(err, ErrOutcomeUnknown) {
		return t.unknown
	}
	last := err
	if gaveUp, ok := err.(*resilience.RetryError); ok { //nolint:errorlint // what another policy made of it stays
		last = gaveUp.Err
	}
	if own, ok := last.(*ownError); ok { //nolint:errorlint // see above
		return own.error
	}
	return err
}

// ofFunction marks an error of the function for the policy.
func ofFunction(err error) error {
	if recognise(err) == 0 && !marked(err) {
		return &ownError{err}
	}
	return AsClass(err)
}

// ownError is an error of the function that has nothing to do with the database.
// The caller gets what is within.
type ownError struct{ error }

func (e *ownError) Unwrap() error           { return e.error }
func (e *ownError) Class() resilience.Class { return resilience.Permanent }
