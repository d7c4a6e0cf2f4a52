package idempotency

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/aftercommit"
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
// An event without an id, or outside of a consumer group, is a permanent error.
func Once[T any](i *Inbox, h func(ctx context.Context, tx *sql.Tx, e eventbus.Event[T]) error) func(context.Context, eventbus.Event[T]) error {
	return func(ctx context.Context, e eventbus.Event[T]) error {
		if i == nil || h == nil {
			return eventbus.Permanent(errors.New("idempotency: Once was given a nil inbox or handler"))
		}
		m := Mark{Consumer: e.Group, Source: e.Source, ID: e.ID}
		_, err := i.Transact(ctx, m, func(ctx context.Context, tx *sql.Tx) error { return h(ctx, tx, e) })
		return err
	}
}

// Mark says what has been handled by whom.
type Mark struct {
	// Consumer is who handles it: a consumer group. Required.
	Consumer string
	// Source is within what ID is unique: the publishing service. May be empty,
	// as it is for events of foreign producers.
	Source string
	// ID of the event. Required.
	ID string
}

func (m Mark) String() string {
	return fmt.Sprintf("event %s of source %q for consumer %q", m.ID, m.Source, m.Consumer)
}

func (m Mark) check() error {
	if m.Consumer == "" {
		return errors.New("the consumer is empty: an event outside of a consumer group can't be told from the same one handled elsewhere; call the handler from eventbus.Subscribe, or Transact with a Mark")
	}
	if m.ID == "" {
		return errors.New("the event has no id, so repetitions can't be recognised")
	}
	return nil
}

// Transact is Once without the types: it runs fn in one transaction with the
// mark m. If m is there already, fn is not called and duplicate is true.
// Concurrent calls with one mark wait for each other: the first that commits
// wins, the others are duplicates.
//
// An error of fn is returned as it is; those of the database are wrapped and
// may be retried; those about m are permanent.
func (i *Inbox) Transact(ctx context.Context, m Mark, fn func(ctx context.Context, tx *sql.Tx) error) (duplicate bool, err error) {
	if i.err != nil {
		return false, i.err
	}
	if err := m.check(); err != nil {
		return false, eventbus.Permanent(fmt.Errorf("idempotency: %s: %w", m, err))
	}
	ctx, hooks := aftercommit.With(ctx)
	var own error // of fn, to be told from the database's
	err = i.sql.dialect.Transact(ctx, i.db, func(tx *sql.Tx) error {
		fresh, err := i.mark(ctx, tx, m)
		switch {
		case err != nil:
			return err
		case !fresh:
			return errDuplicate
		}
		own = fn(ctx, tx)
		return own
	})
	switch {
	case err == nil:
		hooks.Run()
		return false, nil
	case own != nil:
		return false, err
	case errors.Is(err, errDuplicate):
		return true, nil
	default:
		return false, fmt.Errorf("idempotency: %s: %w", m, err)
	}
}

var errDuplicate = errors.New("handled already")

// mark reports whether m is new. It is the first statement of its transaction,
// so that two deliveries of one event are put in order by the database before
// either has done anything.
func (i *Inbox) mark(ctx context.Context, tx *sql.Tx, m Mark) (fresh bool, err error) {
	res, err := tx.ExecContext(ctx, i.sql.mark, m.Consumer, m.Source, m.ID, time.Now().UnixMilli())
	if i.sql.dialect.IsMissingTable(err) {
		return false, fmt.Errorf("%w: call Migrate, or apply Schema, before the inbox is used", err)
	}
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}
