package pgxinbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/internal/marks"
	"github.com/millrace-go/millrace/internal/aftercommit"
)

// Once is idempotency.Once with a pgx.Tx. It costs no round trip on top of those
// of h's own transaction, and a duplicate one or, if it was handled lately in
// this process, none.
func Once[T any](i *Inbox, h func(ctx context.Context, tx pgx.Tx, e eventbus.Event[T]) error) func(context.Context, eventbus.Event[T]) error {
	return func(ctx context.Context, e eventbus.Event[T]) error {
		if i == nil || h == nil {
			return eventbus.Permanent(errors.New("pgxinbox: Once was given a nil inbox or handler"))
		}
		m := idempotency.Mark{Consumer: e.Group, Source: e.Source, ID: e.ID}
		_, err := i.transact(ctx, m, e.Attempt > 1, func(ctx context.Context, tx pgx.Tx) error { return h(ctx, tx, e) })
		return err
	}
}

// Transact is idempotency.Inbox.Transact with a pgx.Tx.
func (i *Inbox) Transact(ctx context.Context, m idempotency.Mark, fn func(ctx context.Context, tx pgx.Tx) error) (duplicate bool, err error) {
	return i.transact(ctx, m, false, fn)
}

func (i *Inbox) transact(ctx context.Context, m idempotency.Mark, redelivered bool, fn func(ctx context.Context, tx pgx.Tx) error) (duplicate bool, err error) {
	key, digest, err := i.prepare(ctx, m)
	if err != nil {
		return false, err
	}
	if i.state.Known(digest) {
		return true, nil
	}
	if i.state.Suspects(redelivered) {
		seen, err := i.look(ctx, i.pool, key, m)
		switch {
		case err != nil:
			return false, err
		case seen:
			i.state.Duplicate(digest)
			return true, nil
		}
		i.state.Fresh()
	}
	ctx, hooks := aftercommit.With(ctx)
	var own error // of fn, to be told from the database's
	err = i.state.Retry(ctx, func(called *bool) error {
		return i.attempt(ctx, key, func(tx pgx.Tx) error {
			*called = true
			own = fn(ctx, tx)
			return own
		})
	})
	switch {
	case err == nil:
		i.state.Committed(digest)
		hooks.Run()
		return false, nil
	case own != nil:
		return false, err
	case errors.Is(err, errDuplicate):
		i.state.Duplicate(digest)
		return true, nil
	default:
		return false, fmt.Errorf("pgxinbox: %s: %w", m, err)
	}
}

// attempt runs fn in one transaction with the mark.
func (i *Inbox) attempt(ctx context.Context, key marks.Key, fn func(pgx.Tx) error) error {
	conn, err := i.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("begin the transaction: %w", err)
	}
	defer conn.Release() // ends a connection whose transaction is open
	tx, err := i.begin(ctx, conn.Conn(), key)
	if err != nil {
		return err
	}
	return finish(ctx, tx, fn)
}

// finish runs fn and commits, or rolls back if fn fails or panics.
func finish(ctx context.Context, tx pgx.Tx, fn func(pgx.Tx) error) error {
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit as in a failing test
			_ = rollback(ctx, tx)
		}
	}()
	err := fn(tx)
	returned = true
	if err != nil {
		if undo := rollback(ctx, tx); undo != nil && !errors.Is(undo, pgx.ErrTxClosed) {
			return errors.Join(err, fmt.Errorf("roll back: %w", undo))
		}
		return err
	}
	switch err := tx.Commit(ctx); {
	case errors.Is(err, pgx.ErrTxClosed):
		return fmt.Errorf("commit: %w (by the function that was called within it; it must leave that to its caller)", err)
	case err != nil && ctx.Err() != nil:
		_ = rollback(ctx, tx)
		return fmt.Errorf("commit: %w", context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// rollback goes on when ctx has ended, for a while.
func rollback(ctx context.Context, tx pgx.Tx) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return tx.Rollback(ctx)
}
