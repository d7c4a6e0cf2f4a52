package idempotency

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency/internal/marks"
	"github.com/millrace-go/millrace/internal/aftercommit"
	"github.com/millrace-go/millrace/internal/held"
)

// Once makes a handler for eventbus.Subscribe whose effects in the inbox's
// database happen once per event and consumer group, however often the event
// is delivered.
//
// h runs in a transaction that also holds the event's mark: both commit, or
// neither does. If the mark is there already, h is not called and the result is
// nil. If h returns an error or panics, or the commit fails, everything is
// rolled back, the mark included, and the next delivery runs h again. h must
// not commit or roll back tx itself.
//
// Events that h publishes with its ctx to an outbox within tx belong to the
// same transaction, and the relay is woken after the commit.
//
// It costs one round trip on top of those of h's own transaction, and a duplicate
// that was handled lately in this process costs none. An event without an id,
// or outside of a consumer group, is a permanent error.
func Once[T any](i *Inbox, h func(ctx context.Context, tx *sql.Tx, e eventbus.Event[T]) error) func(context.Context, eventbus.Event[T]) error {
	return func(ctx context.Context, e eventbus.Event[T]) error {
		if i == nil || h == nil {
			return eventbus.Permanent(errors.New("idempotency: Once was given a nil inbox or handler"))
		}
		m := Mark{Consumer: e.Group, Source: e.Source, ID: e.ID}
		_, err := i.transact(ctx, m, e.Attempt > 1, func(ctx context.Context, tx *sql.Tx) error { return h(ctx, tx, e) })
		return err
	}
}

// Transact is Once without the types: it runs fn in one transaction with the
// mark m. If m is there already, fn is not called and duplicate is true.
// Concurrent calls with one mark wait for each other: the first that commits
// wins, the others are duplicates.
//
// An error of fn is returned as it is; those of the database are wrapped and
// may be retried; those about m are permanent. Deadlocks and serialization
// failures before fn was called are tried again here. Later ones are returned,
// since only the caller knows whether fn may run twice.
//
// The transaction has the isolation level that the database gives to those who
// ask for none.
func (i *Inbox) Transact(ctx context.Context, m Mark, fn func(ctx context.Context, tx *sql.Tx) error) (duplicate bool, err error) {
	return i.transact(ctx, m, false, fn)
}

// transact is Transact of an event that may be known to be delivered again.
func (i *Inbox) transact(ctx context.Context, m Mark, redelivered bool, fn func(ctx context.Context, tx *sql.Tx) error) (duplicate bool, err error) {
	key, digest, err := i.prepare(m)
	if err != nil {
		return false, err
	}
	if i.state.Known(digest) {
		return true, nil
	}
	if i.state.Suspects(redelivered) {
		seen, err := i.look(ctx, i.db, key, m)
		switch {
		case err != nil:
			return false, err
		case seen:
			i.state.Duplicate(digest)
			return true, nil
		}
		i.state.Fresh()
	}
	return i.markAndRun(ctx, m, key, digest, fn)
}

var errDuplicate = errors.New("handled already")

// markAndRun marks in the first statement of the transaction, so that two
// deliveries of one event are put in order by the database before either has
// done anything.
func (i *Inbox) markAndRun(ctx context.Context, m Mark, key marks.Key, digest marks.Digest, fn func(ctx context.Context, tx *sql.Tx) error) (duplicate bool, err error) {
	ctx, hooks := aftercommit.With(ctx)
	var own error // of fn, to be told from the database's
	err = i.state.Retry(ctx, func(called *bool) error {
		return i.state.Dialect.Transact(held.MayBegin(ctx), i.db, func(tx *sql.Tx) error {
			fresh, err := i.insert(ctx, tx, key)
			switch {
			case err != nil:
				return i.state.Explain(err)
			case !fresh:
				return errDuplicate
			}
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
		return false, fmt.Errorf("idempotency: %s: %w", m, err)
	}
}
