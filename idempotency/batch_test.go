package idempotency_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/aftercommit"
	"github.com/millrace-go/millrace/internal/testdb"
)

func batchOf(ids ...string) []idempotency.Mark {
	all := make([]idempotency.Mark, len(ids))
	for i, id := range ids {
		all[i] = mark(id)
	}
	return all
}

func TestBatchCommitsTogetherAndTellsDuplicates(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e2")))
		for _, i := range []*idempotency.Inbox{idempotency.NewInbox(db.DB, db.Dialect), inbox} { // by the table, and from memory
			all := batchOf("z", "e2", "a", "z", "m")
			var order []int
			duplicate, err := i.Batch(t.Context(), all, func(ctx context.Context, tx *sql.Tx, n int) error {
				order = append(order, n)
				return write(ctx, tx, all[n].ID)
			})
			require.NoError(t, err)
			if i != inbox {
				require.Equal(t, []bool{false, true, false, true, false}, duplicate)
				require.Equal(t, []int{0, 2, 4}, order, "in the order of the batch")
			} else {
				require.Equal(t, []bool{true, true, true, true, true}, duplicate)
				require.Empty(t, order)
			}
		}
		require.Equal(t, 4, effects(t, db.DB))
		require.Equal(t, 4, marks(t, db.DB))
		duplicate, err := inbox.Batch(t.Context(), nil, nil)
		require.NoError(t, err)
		require.Empty(t, duplicate)
	})
}

func TestEventsOfABatchThatFailAreUndoneAlone(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		all := batchOf("a", "bad", "c", "worse", "e", "bad")
		oops := map[string]error{"bad": errors.New("oops"), "worse": eventbus.Permanent(errors.New("hopeless"))}
		calls := map[string]int{}
		hooks := 0
		handle := func(ctx context.Context, tx *sql.Tx, n int) error {
			id := all[n].ID
			calls[id]++
			aftercommit.Do(ctx, "relay", func() { hooks++ })
			require.NoError(t, write(ctx, tx, id))
			return oops[id]
		}
		duplicate, err := inbox.Batch(t.Context(), all, handle)
		var batch *idempotency.BatchError
		require.ErrorAs(t, err, &batch)
		require.Equal(t, []error{nil, oops["bad"], nil, oops["worse"], nil, oops["bad"]}, batch.Errs)
		require.EqualError(t, err, "idempotency: 3 of 6 events failed, first: oops")
		require.ErrorIs(t, err, oops["worse"])
		require.Equal(t, make([]bool, 6), duplicate)
		require.Equal(t, map[string]int{"a": 2, "bad": 1, "c": 1, "worse": 1, "e": 1}, calls)
		require.Equal(t, 1, hooks)
		require.Equal(t, 3, effects(t, db.DB))
		require.Equal(t, 3, marks(t, db.DB))

		clear(oops)
		duplicate, err = inbox.Batch(t.Context(), all, handle)
		require.NoError(t, err)
		require.Equal(t, []bool{true, false, true, false, true, true}, duplicate)
		require.Equal(t, 5, effects(t, db.DB))
		require.Equal(t, 5, marks(t, db.DB))
	})
}

// A statement that fails aborts PostgreSQL's transaction; a savepoint is what
// saves the others.
func TestStatementThatFailsInABatch(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		all := batchOf("a", "b", "c", "d")
		_, err := inbox.Batch(t.Context(), all, func(ctx context.Context, tx *sql.Tx, n int) error {
			if n%2 == 1 {
				_, err := tx.ExecContext(ctx, "INSERT INTO nowhere VALUES (1)")
				return err
			}
			return write(ctx, tx, all[n].ID)
		})
		var batch *idempotency.BatchError
		require.ErrorAs(t, err, &batch)
		require.NoError(t, batch.Errs[0])
		require.True(t, db.Dialect.IsMissingTable(batch.Errs[1]))
		require.NoError(t, batch.Errs[2])
		require.True(t, db.Dialect.IsMissingTable(batch.Errs[3]))
		require.Equal(t, 2, effects(t, db.DB))
		require.Equal(t, 2, marks(t, db.DB))
	})
}

func TestBatchOfWhichAllFailCommitsNothing(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		oops := errors.New("oops")
		for _, all := range [][]idempotency.Mark{batchOf("a"), batchOf("a", "b", "c")} {
			_, err := inbox.Batch(t.Context(), all, func(ctx context.Context, tx *sql.Tx, n int) error {
				require.NoError(t, write(ctx, tx, all[n].ID))
				return oops
			})
			var batch *idempotency.BatchError
			require.ErrorAs(t, err, &batch)
			require.NotContains(t, batch.Errs, error(nil))
		}
		require.Zero(t, effects(t, db.DB))
		require.Zero(t, marks(t, db.DB))
	})
}

func TestPanicInABatchUndoesAll(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		all := batchOf("a", "b")
		require.PanicsWithValue(t, "boom", func() {
			_, _ = inbox.Batch(t.Context(), all, func(ctx context.Context, tx *sql.Tx, n int) error {
				require.NoError(t, write(ctx, tx, all[n].ID))
				if n == 1 {
					panic("boom")
				}
				return nil
			})
		})
		require.Zero(t, effects(t, db.DB))
		require.Zero(t, marks(t, db.DB))
	})
}

func TestBatchWhoseContextEnds(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := inbox.Batch(ctx, batchOf("a", "b"), func(ctx context.Context, tx *sql.Tx, n int) error {
			cancel()
			return ctx.Err()
		})
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorAs(t, err, new(*idempotency.BatchError))
		require.Eventually(t, func() bool { return marks(t, db.DB) == 0 }, waitLimit, waitTick)
	})
}

// Batches that share events, in opposite orders, must neither deadlock nor
// handle one twice.
func TestBatchesThatOverlap(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, _ *idempotency.Inbox) {
		const workers, size = 6, 60
		var handled atomic.Int32
		var wg sync.WaitGroup
		for w := range workers {
			inbox := idempotency.NewInbox(db.DB, db.Dialect)
			all := make([]idempotency.Mark, size)
			for n := range all {
				id := n + 10*w
				if w%2 == 1 {
					id = 10*w + size - 1 - n
				}
				all[n] = mark(fmt.Sprint(id))
			}
			wg.Go(func() {
				_, err := inbox.Batch(t.Context(), all, func(ctx context.Context, tx *sql.Tx, n int) error {
					handled.Add(1)
					return write(ctx, tx, all[n].ID)
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.Equal(t, size+10*(workers-1), effects(t, db.DB))
		require.EqualValues(t, size+10*(workers-1), handled.Load())
	})
}

func TestLargeBatch(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		all := make([]idempotency.Mark, 1200)
		for n := range all {
			all[n] = mark(fmt.Sprint(n))
		}
		nothing := func(context.Context, *sql.Tx, int) error { return nil }
		_, err := inbox.Batch(t.Context(), all[:700], nothing)
		require.NoError(t, err)
		other := idempotency.NewInbox(db.DB, db.Dialect)
		duplicate, err := other.Batch(t.Context(), all, func(_ context.Context, _ *sql.Tx, n int) error {
			if n >= 1150 {
				return errors.New("oops")
			}
			return nil
		})
		require.Error(t, err)
		for n, d := range duplicate {
			require.Equal(t, n < 700, d, n)
		}
		require.Equal(t, 1150, marks(t, db.DB))
	})
}

func TestOnceBatch(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		handle := idempotency.OnceBatch(inbox, effect)
		require.NoError(t, handle(t.Context(), []eventbus.Event[string]{event("a"), event("b"), event("a")}))
		require.NoError(t, handle(t.Context(), []eventbus.Event[string]{event("b"), event("c")}))
		require.Equal(t, 3, effects(t, db.DB))
		require.ErrorContains(t, idempotency.OnceBatch[string](nil, nil)(t.Context(), nil), "nil inbox or handler")
	})
}
