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
)

// OnceBatch is idempotency.OnceBatch with a pgx.Tx.
func OnceBatch[T any](i *Inbox, h func(ctx context.Context, tx pgx.Tx, e eventbus.Event[T]) error) func(context.Context, []eventbus.Event[T]) error {
	return func(ctx context.Context, events []eventbus.Event[T]) error {
		if i == nil || h == nil {
			return eventbus.Permanent(errors.New("pgxinbox: OnceBatch was given a nil inbox or handler"))
		}
		all := make([]idempotency.Mark, len(events))
		for n, e := range events {
			all[n] = idempotency.Mark{Consumer: e.Group, Source: e.Source, ID: e.ID}
		}
		_, err := i.Batch(ctx, all, func(ctx context.Context, tx pgx.Tx, n int) error { return h(ctx, tx, events[n]) })
		return err
	}
}

// Batch is idempotency.Inbox.Batch with a pgx.Tx. The transaction is begun and
// all events are marked in one round trip.
func (i *Inbox) Batch(ctx context.Context, all []idempotency.Mark, fn func(ctx context.Context, tx pgx.Tx, n int) error) (duplicate []bool, err error) {
	if err := i.fault(ctx); err != nil {
		return nil, err
	}
	keys := make([]marks.Key, len(all))
	for n, m := range all {
		keys[n] = marks.Key(m)
	}
	duplicate, errs, err := marks.Run(ctx, i.state, batches{i}, keys, fn)
	if err != nil {
		return nil, fmt.Errorf("pgxinbox: batch of %d events: %w", len(all), err)
	}
	if errs != nil {
		return duplicate, &idempotency.BatchError{Errs: errs}
	}
	return duplicate, nil
}

// batches is what marks.Run needs of pgx.
type batches struct{ *Inbox }

func (b batches) Transact(ctx context.Context, keys []marks.Key, fn func(pgx.Tx, []bool) error) error {
	return b.state.Retry(ctx, func(called *bool) error {
		conn, err := b.pool.Acquire(ctx)
		if err != nil {
			return fmt.Errorf("begin the transaction: %w", err)
		}
		defer conn.Release()
		tx, fresh, err := b.beginMany(ctx, conn.Conn(), keys)
		if err != nil {
			if tx != nil {
				_ = rollback(ctx, tx)
			}
			return fmt.Errorf("begin the transaction with the marks: %w", b.state.Explain(err))
		}
		return finish(ctx, tx, func(tx pgx.Tx) error {
			*called = true
			return fn(tx, fresh)
		})
	})
}

// beginMany begins and marks keys, which are in order, and says which are new.
func (b batches) beginMany(ctx context.Context, conn *pgx.Conn, keys []marks.Key) (tx pgx.Tx, fresh []bool, err error) {
	var request pgx.Batch
	request.BeginTx(pgx.TxOptions{})
	now := time.Now().UnixMilli()
	_ = marks.Chunks(keys, b.state.Chunk(), func(chunk []marks.Key) error {
		statement, args := b.state.MarkMany(chunk, now)
		request.Queue(statement, args...)
		return nil
	})
	answer := conn.SendBatch(ctx, &request)
	tx = answer.Tx()
	if _, err = answer.Exec(); err == nil {
		fresh, err = marks.Which(keys, b.state.Chunk(), func([]marks.Key) ([]marks.Key, error) {
			return readKeys(answer.Query())
		})
	}
	if closing := answer.Close(); err == nil {
		err = closing
	}
	return tx, fresh, err
}

func readKeys(rows pgx.Rows, err error) (keys []marks.Key, _ error) {
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

func (b batches) Exec(ctx context.Context, tx pgx.Tx, statement string) error {
	_, err := tx.Exec(ctx, statement)
	return err
}

func (b batches) Unmark(ctx context.Context, tx pgx.Tx, keys []marks.Key) error {
	return marks.Chunks(keys, b.state.Chunk(), func(chunk []marks.Key) error {
		statement, args := b.state.UnmarkMany(chunk)
		_, err := tx.Exec(ctx, statement, args...)
		return err
	})
}
