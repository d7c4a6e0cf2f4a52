package pgxinbox_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/internal/lossy"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/internal/aftercommit"
)

func TestDuplicatesApplyOnceUnderEightGoroutines(t *testing.T) {
	r := newRig(t)
	var calls atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		handle := pgxinbox.Once(r.open(t), func(ctx context.Context, tx pgx.Tx, e eventbus.Event[string]) error {
			calls.Add(1)
			return effect(ctx, tx, e)
		})
		wg.Go(func() {
			for i := range 50 {
				if err := handle(t.Context(), event(fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 50, calls.Load())
	require.Equal(t, 50, r.count(t, "effects"))
	require.Equal(t, 50, r.count(t, "millrace_inbox"))
}

// Deduplicating before handling: a handler that fails once is then skipped for ever.
func TestHandlerThatFailsRunsAgain(t *testing.T) {
	eachMode(t, func(t *testing.T, r rig) {
		oops := errors.New("oops")
		fails := []func(ctx context.Context, tx pgx.Tx) error{
			func(context.Context, pgx.Tx) error { return oops },
			func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, "SELECT nonsense"); return err },
			func(ctx context.Context, tx pgx.Tx) error { _, _ = tx.Exec(ctx, "SELECT nonsense"); return nil },
			func(ctx context.Context, tx pgx.Tx) error { return tx.Rollback(ctx) },
		}
		for _, fail := range fails {
			handle := pgxinbox.Once(r.inbox, func(ctx context.Context, tx pgx.Tx, e eventbus.Event[string]) error {
				require.NoError(t, effect(ctx, tx, e))
				return fail(ctx, tx)
			})
			require.Error(t, handle(t.Context(), event("e1")))
			require.Zero(t, r.count(t, "effects"))
			require.Zero(t, r.count(t, "millrace_inbox"))
		}
		require.PanicsWithValue(t, "boom", func() {
			_ = pgxinbox.Once(r.inbox, func(context.Context, pgx.Tx, eventbus.Event[string]) error { panic("boom") })(t.Context(), event("e1"))
		})
		for range 2 {
			require.NoError(t, pgxinbox.Once(r.inbox, effect)(t.Context(), event("e1")))
		}
		require.Equal(t, 1, r.count(t, "effects"))
		require.EqualValues(t, 1, r.pool.Stat().TotalConns(), "failures cost no connection")
		require.EqualValues(t, 1, r.pool.Stat().NewConnsCount())
	})
}

func TestHandlerMustNotEndTheTransaction(t *testing.T) {
	r := newRig(t)
	err := pgxinbox.Once(r.inbox, func(ctx context.Context, tx pgx.Tx, _ eventbus.Event[string]) error { return tx.Commit(ctx) })(t.Context(), event("e1"))
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	require.ErrorContains(t, err, "it must leave that to its caller")
}

// What is left of the transaction after its end must not reach whoever has the
// connection then.
func TestTransactionIsOfNoUseAfterItsEnd(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	var kept pgx.Tx
	_, err := r.inbox.Transact(ctx, mark("e1"), func(ctx context.Context, tx pgx.Tx) error {
		kept = tx
		nested, err := tx.Begin(ctx)
		require.NoError(t, err)
		_, err = nested.Exec(ctx, "INSERT INTO effects VALUES ('nested')")
		require.NoError(t, err)
		require.NoError(t, nested.Rollback(ctx))
		_, err = tx.CopyFrom(ctx, pgx.Identifier{"effects"}, []string{"id"}, pgx.CopyFromRows([][]any{{"a"}, {"b"}}))
		require.NoError(t, err)
		large := tx.LargeObjects()
		_, err = large.Create(ctx, 0)
		require.NoError(t, err)
		var batch pgx.Batch
		batch.Queue("INSERT INTO effects VALUES ('c')")
		require.NoError(t, tx.SendBatch(ctx, &batch).Close())
		_, err = tx.Prepare(ctx, "one", "SELECT 1")
		require.NoError(t, err)
		var one int
		require.NoError(t, tx.QueryRow(ctx, "one").Scan(&one))
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, 3, r.count(t, "effects"))
	_, err = kept.Exec(ctx, "SELECT 1")
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	rows, err := kept.Query(ctx, "SELECT 1")
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	require.False(t, rows.Next())
	rows.Close()
	require.ErrorIs(t, kept.QueryRow(ctx, "SELECT 1").Scan(), pgx.ErrTxClosed)
	_, err = kept.Begin(ctx)
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	_, err = kept.CopyFrom(ctx, pgx.Identifier{"effects"}, []string{"id"}, pgx.CopyFromRows(nil))
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	_, err = kept.Prepare(ctx, "", "SELECT 1")
	require.ErrorIs(t, err, pgx.ErrTxClosed)
	require.ErrorIs(t, kept.SendBatch(ctx, &pgx.Batch{}).Close(), pgx.ErrTxClosed)
	require.ErrorIs(t, kept.Commit(ctx), pgx.ErrTxClosed)
	require.ErrorIs(t, kept.Rollback(ctx), pgx.ErrTxClosed)
}

func TestFailedCommitIsAnErrorAndTheEventRunsAgain(t *testing.T) {
	r := newRig(t)
	_, err := r.pool.Exec(t.Context(), "CREATE TABLE parent (id text PRIMARY KEY); CREATE TABLE child (parent text REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
	require.NoError(t, err)
	ran := false
	err = pgxinbox.Once(r.inbox, func(ctx context.Context, tx pgx.Tx, e eventbus.Event[string]) error {
		aftercommit.Do(ctx, "hook", func() { ran = true })
		_, err := tx.Exec(ctx, "INSERT INTO child VALUES ('nobody')")
		return err
	})(t.Context(), event("e1"))
	require.ErrorContains(t, err, `pgxinbox: event e1 of source "shop" for consumer "billing": commit: `)
	require.False(t, ran)
	require.Zero(t, r.count(t, "millrace_inbox"))
	require.NoError(t, pgxinbox.Once(r.inbox, effect)(t.Context(), event("e1")))
	require.Equal(t, 1, r.count(t, "effects"))
}

func TestHooksRunAfterTheCommitAndNotForDuplicates(t *testing.T) {
	r := newRig(t)
	runs := 0
	hook := func(ctx context.Context) {
		require.True(t, aftercommit.Do(ctx, "relay", func() { runs++ }))
	}
	for range 2 {
		_, err := r.inbox.Transact(t.Context(), mark("e1"), func(ctx context.Context, _ pgx.Tx) error { hook(ctx); return nil })
		require.NoError(t, err)
		_, err = r.inbox.Batch(t.Context(), []idempotency.Mark{mark("a"), mark("b")}, func(ctx context.Context, _ pgx.Tx, _ int) error { hook(ctx); return nil })
		require.NoError(t, err)
	}
	require.Equal(t, 2, runs)
}

func TestContextThatEndsRollsBack(t *testing.T) {
	eachMode(t, func(t *testing.T, r rig) {
		ctx, cancel := context.WithCancel(t.Context())
		err := pgxinbox.Once(r.inbox, func(ctx context.Context, tx pgx.Tx, e eventbus.Event[string]) error {
			require.NoError(t, effect(ctx, tx, e))
			cancel()
			return nil
		})(ctx, event("e1"))
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, r.count(t, "effects"))
		require.Zero(t, r.count(t, "millrace_inbox"))
		require.EqualValues(t, 1, r.pool.Stat().NewConnsCount(), "the connection is still good")
	})
}

func TestBatchUndoesAloneWhatFails(t *testing.T) {
	eachMode(t, func(t *testing.T, r rig) {
		ctx := t.Context()
		require.NoError(t, pgxinbox.Once(r.inbox, effect)(ctx, event("old")))
		ids := []string{"z", "bad", "old", "a", "z", "worse"}
		all := make([]idempotency.Mark, len(ids))
		for i, id := range ids {
			all[i] = mark(id)
		}
		other := r.open(t)
		duplicate, err := other.Batch(ctx, all, func(ctx context.Context, tx pgx.Tx, n int) error {
			if ids[n] == "bad" || ids[n] == "worse" {
				_, err := tx.Exec(ctx, "INSERT INTO nowhere VALUES (1)")
				return err
			}
			return effect(ctx, tx, event(ids[n]))
		})
		var batch *idempotency.BatchError
		require.ErrorAs(t, err, &batch)
		for n, id := range ids {
			require.Equal(t, id == "bad" || id == "worse", batch.Errs[n] != nil, id)
		}
		require.Equal(t, []bool{false, false, true, false, true, false}, duplicate)
		require.Equal(t, 3, r.count(t, "effects"))
		require.Equal(t, 3, r.count(t, "millrace_inbox"))
		require.NoError(t, pgxinbox.OnceBatch(other, effect)(ctx, []eventbus.Event[string]{event("bad"), event("a")}))
		require.Equal(t, 4, r.count(t, "effects"))
	})
}

// A COMMIT whose answer is lost is an error, and the next delivery finds out.
func TestCommitWhoseAnswerIsLost(t *testing.T) {
	for direction, committed := range map[string]bool{"upstream": false, "downstream": true} {
		t.Run(direction, func(t *testing.T) {
			r := newRig(t)
			u, err := url.Parse(r.db.DSN)
			require.NoError(t, err)
			proxy := lossy.New(t, u.Host)
			far, err := pgxpool.New(t.Context(), strings.Replace(r.db.DSN, u.Host, proxy.Address(), 1))
			require.NoError(t, err)
			defer far.Close()
			inbox := pgxinbox.New(far)
			defer inbox.Close()
			calls := 0
			handle := pgxinbox.Once(inbox, func(ctx context.Context, tx pgx.Tx, e eventbus.Event[string]) error {
				if calls++; calls == 1 {
					defer proxy.Lose(direction)
				}
				return effect(ctx, tx, e)
			})
			require.ErrorContains(t, handle(t.Context(), event("e1")), "commit: ")
			proxy.Heal()
			require.Eventually(t, func() bool { return (r.count(t, "millrace_inbox") == 1) == committed }, 30*time.Second, 5*time.Millisecond)
			require.NoError(t, handle(t.Context(), event("e1")))
			require.Equal(t, 1, r.count(t, "effects"))
			require.Equal(t, 1, r.count(t, "millrace_inbox"))
		})
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	ctx := t.Context()
	require.ErrorContains(t, pgxinbox.Once[string](nil, nil)(ctx, event("e1")), "nil inbox or handler")
	require.ErrorContains(t, pgxinbox.OnceBatch[string](nil, nil)(ctx, nil), "nil inbox or handler")
	none := pgxinbox.New(nil)
	_, err := none.Transact(ctx, mark("e1"), nil)
	require.ErrorContains(t, err, "idempotency: NewInbox: the database is nil")
	require.NoError(t, none.Close())
	_, err = (&pgxinbox.Inbox{}).Batch(ctx, nil, nil)
	require.ErrorContains(t, err, "was not made by New")
	eachMode(t, func(t *testing.T, r rig) {
		_, err := r.inbox.Transact(ctx, idempotency.Mark{Consumer: "c"}, nil)
		require.ErrorContains(t, err, "the event has no id")
		require.True(t, eventbus.IsPermanent(err))
		missing := r.open(t, idempotency.Table("missing"))
		_, err = missing.Transact(ctx, mark("e1"), nil)
		require.ErrorContains(t, err, "call Migrate, or apply Schema")
		_, err = missing.Batch(ctx, []idempotency.Mark{mark("e1")}, nil)
		require.ErrorContains(t, err, "call Migrate, or apply Schema")
		require.NoError(t, pgxinbox.Once(r.inbox, effect)(ctx, event("e1")), "the connection is still good")
		_, err = r.pool.Exec(ctx, "DROP TABLE millrace_inbox")
		require.NoError(t, err)
		_, err = r.inbox.Transact(ctx, mark("e2"), nil)
		require.ErrorContains(t, err, "call Migrate, or apply Schema", "by the INSERT")
	})
}

// At other levels of isolation a mark that was committed meanwhile is a
// duplicate as well.
func TestSerializableByDefault(t *testing.T) {
	r := newRig(t, func(c *pgxpool.Config) {
		c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
	})
	var wg sync.WaitGroup
	for range 4 {
		inbox := r.open(t)
		wg.Go(func() {
			for i := range 25 {
				_, err := inbox.Transact(t.Context(), mark(fmt.Sprint(i)), func(ctx context.Context, tx pgx.Tx) error {
					var level string
					if err := tx.QueryRow(ctx, "SHOW transaction_isolation").Scan(&level); err != nil || level != "serializable" {
						t.Error(level, err)
					}
					return effect(ctx, tx, event("e"))
				})
				if err != nil && !idempotency.Postgres.IsConflict(err) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, r.count(t, "millrace_inbox"), r.count(t, "effects"))
}
