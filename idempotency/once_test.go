package idempotency_test

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/aftercommit"
	"github.com/millrace-go/millrace/internal/testdb"
)

func TestDuplicatesApplyOnceUnderEightGoroutines(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, _ *idempotency.Inbox) {
		var calls atomic.Int32
		count := func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
			calls.Add(1)
			return effect(ctx, tx, e)
		}
		var wg sync.WaitGroup
		for range 8 { // each with a memory of its own, as other processes would
			handle := idempotency.Once(idempotency.NewInbox(db.Open(t), db.Dialect), count)
			wg.Go(func() {
				for i := range 50 {
					if err := handle(t.Context(), event(strconv.Itoa(i))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 50, calls.Load())
		require.Equal(t, 50, effects(t, db.DB))
	})
}

// One of eight wins and fails; the others have waited for it, and one of them
// runs. On MySQL they deadlock over the mark that was rolled back.
func TestDeliveriesThatWaitForOneThatFails(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, _ *idempotency.Inbox) {
		for round := range 10 {
			var calls atomic.Int32
			var failed atomic.Int32
			oops := errors.New("oops")
			m := mark(strconv.Itoa(round))
			var wg sync.WaitGroup
			for range 8 {
				inbox := idempotency.NewInbox(db.DB, db.Dialect)
				wg.Go(func() {
					_, err := inbox.Transact(t.Context(), m, func(ctx context.Context, tx *sql.Tx) error {
						if calls.Add(1) == 1 {
							return oops
						}
						return write(ctx, tx, m.ID)
					})
					switch {
					case errors.Is(err, oops):
						failed.Add(1)
					case err != nil:
						t.Error(err)
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, 2, calls.Load())
			require.EqualValues(t, 1, failed.Load())
			require.Equal(t, round+1, effects(t, db.DB))
		}
	})
}

// Deduplicating before handling: a handler that fails once is then skipped for
// ever (Watermill's Deduplicator).
func TestDeduplicatingBeforeHandlingAHandlerThatFailsOnceIsThenSkippedForEver(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		failures := []error{errors.New("first"), eventbus.Permanent(errors.New("second"))}
		handle := idempotency.Once(inbox, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
			require.NoError(t, effect(ctx, tx, e))
			if len(failures) > 0 {
				err := failures[0]
				failures = failures[1:]
				return err
			}
			return nil
		})
		first, second := failures[0], failures[1]
		require.Same(t, first, handle(t.Context(), event("e1")), "the handler's own error, for the retry policy to read")
		require.Same(t, second, handle(t.Context(), event("e1")))
		require.Zero(t, effects(t, db.DB), "partial writes of failed tries apply three times (watermill-sql#224)")
		require.Zero(t, marks(t, db.DB))
		require.NoError(t, handle(t.Context(), event("e1")))
		require.NoError(t, handle(t.Context(), event("e1")))
		require.Equal(t, 1, effects(t, db.DB))
	})
}

func TestPanicRollsBackAndGoesOn(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		handle := idempotency.Once(inbox, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
			require.NoError(t, effect(ctx, tx, e))
			panic("boom")
		})
		require.PanicsWithValue(t, "boom", func() { _ = handle(t.Context(), event("e1")) })
		require.Zero(t, marks(t, db.DB))
		require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")))
		require.Equal(t, 1, effects(t, db.DB))
	})
}

// A failed COMMIT only logged.
func TestFailedCommitIsAnErrorAndTheEventRunsAgain(t *testing.T) {
	db := newDB(t)
	_, err := db.Exec("CREATE TABLE parent (id TEXT PRIMARY KEY)")
	require.NoError(t, err)
	_, err = db.Exec("CREATE TABLE child (parent TEXT REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)")
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	_, err = db.Exec("PRAGMA foreign_keys = 1")
	require.NoError(t, err)
	commitFails(t, db, newInbox(t, db))
}

func TestFailedCommitOnPostgres(t *testing.T) {
	db := testdb.New(t, idempotency.Postgres)
	addEffects(t, db.DB)
	_, err := db.Exec("CREATE TABLE parent (id text PRIMARY KEY); CREATE TABLE child (parent text REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
	require.NoError(t, err)
	commitFails(t, db.DB, migrated(t, db))
}

func commitFails(t *testing.T, db *sql.DB, inbox *idempotency.Inbox) {
	ran := false
	handle := idempotency.Once(inbox, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
		aftercommit.Do(ctx, "hook", func() { ran = true })
		if _, err := tx.Exec("INSERT INTO child VALUES ('nobody')"); err != nil { // found out at commit
			return err
		}
		return effect(ctx, tx, e)
	})
	err := handle(t.Context(), event("e1"))
	require.ErrorContains(t, err, `idempotency: event e1 of source "shop" for consumer "billing": commit: `)
	require.False(t, eventbus.IsPermanent(err))
	require.False(t, ran, "hooks run after a commit only")
	require.Zero(t, effects(t, db))
	require.Zero(t, marks(t, db))
	require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")), "what was not committed is not remembered")
	require.Equal(t, 1, effects(t, db))
}

func TestHandlerMustNotEndTheTransaction(t *testing.T) {
	each(t, func(t *testing.T, _ testdb.DB, inbox *idempotency.Inbox) {
		handle := idempotency.Once(inbox, func(_ context.Context, tx *sql.Tx, _ eventbus.Event[string]) error { return tx.Commit() })
		err := handle(t.Context(), event("e1"))
		require.ErrorIs(t, err, sql.ErrTxDone)
		require.ErrorContains(t, err, "it must leave that to its caller")
	})
}

func TestHooksRunAfterTheCommitAndNotForDuplicates(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		runs := 0
		handle := idempotency.Once(inbox, func(ctx context.Context, _ *sql.Tx, _ eventbus.Event[string]) error {
			require.True(t, aftercommit.Do(ctx, "relay", func() { runs++; require.Equal(t, 1, marks(t, db.DB)) }))
			require.Zero(t, runs)
			return nil
		})
		require.NoError(t, handle(t.Context(), event("e1")))
		require.NoError(t, handle(t.Context(), event("e1")))
		require.Equal(t, 1, runs)
	})
}

func TestMarksTellConsumersSourcesAndIDsApart(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		handle := idempotency.Once(inbox, effect)
		base := event("e1")
		otherGroup, otherSource, noSource, otherID := base, base, base, base
		otherGroup.Group, otherSource.Source, noSource.Source, otherID.ID = "shipping", "erp", "", "e2"
		for range 2 {
			for _, e := range []eventbus.Event[string]{base, otherGroup, otherSource, noSource, otherID} {
				require.NoError(t, handle(t.Context(), e))
			}
		}
		require.Equal(t, 5, effects(t, db.DB))
	})
}

func TestEventWithoutIDOrGroupIsAPermanentError(t *testing.T) {
	inbox := newInbox(t, newDB(t))
	handle := idempotency.Once(inbox, effect)
	noID, noGroup := event(""), event("e1")
	noGroup.Group = ""
	err := handle(t.Context(), noID)
	require.ErrorContains(t, err, "the event has no id")
	require.True(t, eventbus.IsPermanent(err))
	err = handle(t.Context(), noGroup)
	require.ErrorContains(t, err, "the consumer is empty")
	require.True(t, eventbus.IsPermanent(err))
	err = idempotency.Once[string](nil, nil)(t.Context(), event("e1"))
	require.ErrorContains(t, err, "nil inbox or handler")
	_, err = inbox.Batch(t.Context(), []idempotency.Mark{{}, mark("e1")}, func(context.Context, *sql.Tx, int) error { return nil })
	var batch *idempotency.BatchError
	require.ErrorAs(t, err, &batch)
	require.ErrorContains(t, batch.Errs[0], "the consumer is empty")
	require.True(t, eventbus.IsPermanent(batch.Errs[0]))
	require.NoError(t, batch.Errs[1])
}

func TestTransactSaysWhetherItWasADuplicate(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		m := idempotency.Mark{Consumer: "importer", ID: "file-7"}
		nothing := func(context.Context, *sql.Tx) error { return nil }
		for n, i := range []*idempotency.Inbox{
			inbox,
			inbox,                                   // from memory
			idempotency.NewInbox(db.DB, db.Dialect), // by a look: it starts suspicious
			idempotency.NewInbox(db.DB, db.Dialect, idempotency.Recent(0)),
		} {
			duplicate, err := i.Transact(t.Context(), m, nothing)
			require.NoError(t, err)
			require.Equal(t, n > 0, duplicate)
		}
		other := idempotency.NewInbox(db.DB, db.Dialect)
		_, err := other.Transact(t.Context(), mark("another"), nothing) // ends the suspicion
		require.NoError(t, err)
		duplicate, err := other.Transact(t.Context(), m, nothing)
		require.NoError(t, err)
		require.True(t, duplicate, "by the INSERT")
		stats, err := other.Stats(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, stats.Handled)
		require.EqualValues(t, 1, stats.Duplicates)
		require.False(t, stats.Oldest.IsZero())
	})
}

func TestContextThatEndsRollsBack(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		ctx, cancel := context.WithCancel(t.Context())
		handle := idempotency.Once(inbox, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
			require.NoError(t, effect(ctx, tx, e))
			cancel()
			return nil
		})
		require.ErrorIs(t, handle(ctx, event("e1")), context.Canceled)
		require.Eventually(t, func() bool { return marks(t, db.DB) == 0 }, waitLimit, waitTick, "database/sql rolls back beside us")
		require.Zero(t, effects(t, db.DB))
		require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")))
	})
}

func TestReadOnlyDatabaseIsAnErrorToRetry(t *testing.T) {
	db := newDB(t)
	inbox := newInbox(t, db)
	db.SetMaxOpenConns(1)
	_, err := db.Exec("PRAGMA query_only = 1")
	require.NoError(t, err)
	err = idempotency.Once(inbox, effect)(t.Context(), event("e1"))
	require.ErrorContains(t, err, "readonly")
	require.False(t, eventbus.IsPermanent(err))
	_, err = db.Exec("PRAGMA query_only = 0")
	require.NoError(t, err)
	require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")))
}

// Deadlocks and failed serializations of the handler's own statements are for
// the retry policy; nothing of them stays.
func TestConflictInTheHandlerIsReturnedAndLeavesNothing(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		inbox := migrated(t, db)
		_, err := db.Exec("CREATE TABLE stock (id INT PRIMARY KEY, n INT NOT NULL)")
		require.NoError(t, err)
		_, err = db.Exec("INSERT INTO stock VALUES (1, 0), (2, 0)")
		require.NoError(t, err)
		var calls atomic.Int32
		met := make(chan struct{})
		add := func(first, second int) func(ctx context.Context, tx *sql.Tx) error {
			return func(ctx context.Context, tx *sql.Tx) error {
				if _, err := tx.ExecContext(ctx, "UPDATE stock SET n = n + 1 WHERE id = "+strconv.Itoa(first)); err != nil {
					return err
				}
				if calls.Add(1) == 2 {
					close(met)
				}
				<-met
				_, err := tx.ExecContext(ctx, "UPDATE stock SET n = n + 1 WHERE id = "+strconv.Itoa(second))
				return err
			}
		}
		handlers := map[string]func(context.Context, *sql.Tx) error{"a": add(1, 2), "b": add(2, 1)}
		var again atomic.Value
		var wg sync.WaitGroup
		for id, fn := range handlers {
			wg.Go(func() {
				if _, err := inbox.Transact(t.Context(), mark(id), fn); db.Dialect.IsConflict(err) {
					again.Store(id)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		require.EqualValues(t, 2, calls.Load(), "a handler that has been called is not called again here")
		loser, _ := again.Load().(string)
		require.NotEmpty(t, loser)
		_, err = inbox.Transact(t.Context(), mark(loser), handlers[loser])
		require.NoError(t, err)
		require.Equal(t, 2, count(t, db.DB, "stock WHERE n = 2"))
	})
}
