package idempotency

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency/internal/marks"
)

// BatchError reports a batch of which some events failed; the others are
// committed or were duplicates.
type BatchError struct {
	// Errs has one element per event of the batch, in order; nil means that the
	// event needs no further delivery.
	Errs []error
}

// Error names the number of failed events and the first reason.
func (e *BatchError) Error() string {
	failed := e.Unwrap()
	if len(failed) == 0 {
		return "idempotency: no event of the batch failed"
	}
	return fmt.Sprintf("idempotency: %d of %d events failed, first: %v", len(failed), len(e.Errs), failed[0])
}

// Unwrap returns the reasons.
func (e *BatchError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// OnceBatch is Once for several events, which share one transaction and one
// INSERT of their marks: see Inbox.Batch, whose errors it returns.
func OnceBatch[T any](i *Inbox, h func(ctx context.Context, tx *sql.Tx, e eventbus.Event[T]) error) func(context.Context, []eventbus.Event[T]) error {
	return func(ctx context.Context, events []eventbus.Event[T]) error {
		if i == nil || h == nil {
			return eventbus.Permanent(errors.New("idempotency: OnceBatch was given a nil inbox or handler"))
		}
		all := make([]Mark, len(events))
		for n, e := range events {
			all[n] = Mark{Consumer: e.Group, Source: e.Source, ID: e.ID}
		}
		_, err := i.Batch(ctx, all, func(ctx context.Context, tx *sql.Tx, n int) error { return h(ctx, tx, events[n]) })
		return err
	}
}

// Batch handles several events in one transaction, which costs a third of a
// transaction each or less. fn is called, in order, with the place in all of
// each event that is new; duplicate says which were not, those that repeat an
// earlier event of the same batch included.
//
// An event that fails is undone alone, with its mark, and the others commit: err
// is then a *BatchError that has its error in its place. Any other err means
// that nothing was committed.
//
// To undo one event, the transaction is rolled back and the others are handled
// again, each in a savepoint. So fn may be called twice for an event whose
// effects on tx are committed once, as it may when a commit fails. An event that
// has failed is not called again before the next delivery.
//
// Batches of some ten to some hundred events are best: marks are locked, and
// other deliveries of these events wait, until the commit.
func (i *Inbox) Batch(ctx context.Context, all []Mark, fn func(ctx context.Context, tx *sql.Tx, n int) error) (duplicate []bool, err error) {
	if i.err != nil {
		return nil, i.err
	}
	keys := make([]marks.Key, len(all))
	for n, m := range all {
		keys[n] = marks.Key(m)
	}
	duplicate, errs, err := marks.Run(ctx, i.state, batches{i}, keys, fn)
	if err != nil {
		return nil, fmt.Errorf("idempotency: batch of %d events: %w", len(all), err)
	}
	if errs != nil {
		return duplicate, &BatchError{errs}
	}
	return duplicate, nil
}

// batches is what marks.Run needs of database/sql.
type batches struct{ *Inbox }

func (b batches) Transact(ctx context.Context, keys []marks.Key, fn func(*sql.Tx, []bool) error) error {
	if b.state.Dialect == MySQL {
		return b.withoutDuplicates(ctx, keys, fn)
	}
	return b.state.Retry(ctx, func(called *bool) error {
		return b.state.Dialect.Transact(ctx, b.db, func(tx *sql.Tx) error {
			fresh, err := b.markMany(ctx, tx, keys)
			if err != nil {
				return b.state.Explain(err)
			}
			*called = true
			return fn(tx, fresh)
		})
	})
}

// markMany marks keys, in order, and says which are new.
func (b batches) markMany(ctx context.Context, tx *sql.Tx, keys []marks.Key) ([]bool, error) {
	now := time.Now().UnixMilli()
	return marks.Which(keys, b.state.Chunk(), func(chunk []marks.Key) ([]marks.Key, error) {
		statement, args := b.state.MarkMany(chunk, now)
		return readKeys(tx.QueryContext(ctx, statement, args...))
	})
}

func readKeys(rows *sql.Rows, err error) (keys []marks.Key, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k marks.Key
		if err := rows.Scan(&k.Consumer, &k.Source, &k.ID); err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return keys, rows.Err()
}

func (b batches) Exec(ctx context.Context, tx *sql.Tx, statement string) error {
	_, err := tx.ExecContext(ctx, statement)
	return err
}

func (b batches) Unmark(ctx context.Context, tx *sql.Tx, keys []marks.Key) error {
	return marks.Chunks(keys, b.state.Chunk(), func(chunk []marks.Key) error {
		statement, args := b.state.UnmarkMany(chunk)
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	})
}
