package idempotency_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/aftercommit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const pragmas = "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"

func open(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+pragmas)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// newDB has a business table of effects.
func newDB(t testing.TB) *sql.DB {
	t.Helper()
	db := open(t, filepath.Join(t.TempDir(), "test.db"))
	_, err := db.Exec("CREATE TABLE effects (id TEXT NOT NULL)")
	require.NoError(t, err)
	return db
}

func newInbox(t testing.TB, db *sql.DB, opts ...idempotency.Option) *idempotency.Inbox {
	t.Helper()
	inbox := idempotency.NewInbox(db, idempotency.SQLite, opts...)
	require.NoError(t, inbox.Migrate(t.Context()))
	return inbox
}

func event(id string) eventbus.Event[string] {
	return eventbus.Event[string]{
		Attributes: eventbus.Attributes{ID: id, Source: "shop"},
		Delivery:   eventbus.Delivery{Topic: "orders", Group: "billing"},
		Data:       id,
	}
}

// effect is a handler that writes the event's data.
func effect(_ context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
	_, err := tx.Exec("INSERT INTO effects VALUES (?)", e.Data)
	return err
}

func effects(t testing.TB, db *sql.DB) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM effects").Scan(&n))
	return n
}

func marks(t testing.TB, db *sql.DB) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM millrace_inbox").Scan(&n))
	return n
}

func TestDuplicatesApplyOnceUnderEightGoroutines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db := open(t, path)
	_, err := db.Exec("CREATE TABLE effects (id TEXT NOT NULL)")
	require.NoError(t, err)
	var calls atomic.Int32
	count := func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
		calls.Add(1)
		return effect(ctx, tx, e)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		own := db
		if g%2 == 1 {
			own = open(t, path) // as another process would
		}
		handle := idempotency.Once(newInbox(t, own), count)
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
	require.Equal(t, 50, effects(t, db))
}

// Deduplicating before handling: a handler that fails once is then skipped for
// ever (Watermill's Deduplicator).
func TestHandlerThatFailsOnceRunsAgain(t *testing.T) {
	db := newDB(t)
	failures := []error{errors.New("first"), eventbus.Permanent(errors.New("second"))}
	handle := idempotency.Once(newInbox(t, db), func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
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
	require.Zero(t, effects(t, db), "partial writes of failed tries apply three times (watermill-sql#224)")
	require.Zero(t, marks(t, db))
	require.NoError(t, handle(t.Context(), event("e1")))
	require.NoError(t, handle(t.Context(), event("e1")))
	require.Equal(t, 1, effects(t, db))
}

func TestPanicRollsBackAndGoesOn(t *testing.T) {
	db := newDB(t)
	inbox := newInbox(t, db)
	handle := idempotency.Once(inbox, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
		require.NoError(t, effect(ctx, tx, e))
		panic("boom")
	})
	require.PanicsWithValue(t, "boom", func() { _ = handle(t.Context(), event("e1")) })
	require.Zero(t, marks(t, db))
	require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")))
	require.Equal(t, 1, effects(t, db))
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
	inbox := newInbox(t, db)
	ran := false
	handle := idempotency.Once(inbox, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
		aftercommit.Do(ctx, "hook", func() { ran = true })
		if _, err := tx.Exec("INSERT INTO child VALUES ('nobody')"); err != nil { // found out at commit
			return err
		}
		return effect(ctx, tx, e)
	})
	err = handle(t.Context(), event("e1"))
	require.ErrorContains(t, err, `idempotency: event e1 of source "shop" for consumer "billing": commit: `)
	require.False(t, eventbus.IsPermanent(err))
	require.False(t, ran, "hooks run after a commit only")
	require.Zero(t, effects(t, db))
	require.Zero(t, marks(t, db))
	require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")))
}

func TestHandlerMustNotEndTheTransaction(t *testing.T) {
	inbox := newInbox(t, newDB(t))
	handle := idempotency.Once(inbox, func(_ context.Context, tx *sql.Tx, _ eventbus.Event[string]) error { return tx.Commit() })
	err := handle(t.Context(), event("e1"))
	require.ErrorIs(t, err, sql.ErrTxDone)
	require.ErrorContains(t, err, "it must leave that to its caller")
}

func TestHooksRunAfterTheCommitAndNotForDuplicates(t *testing.T) {
	db := newDB(t)
	runs := 0
	handle := idempotency.Once(newInbox(t, db), func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
		require.True(t, aftercommit.Do(ctx, "relay", func() { runs++; require.Equal(t, 1, marks(t, db)) }))
		require.Zero(t, runs)
		return nil
	})
	require.NoError(t, handle(t.Context(), event("e1")))
	require.NoError(t, handle(t.Context(), event("e1")))
	require.Equal(t, 1, runs)
}

func TestMarksTellConsumersSourcesAndIDsApart(t *testing.T) {
	db := newDB(t)
	handle := idempotency.Once(newInbox(t, db), effect)
	base := event("e1")
	otherGroup, otherSource, noSource, otherID := base, base, base, base
	otherGroup.Group, otherSource.Source, noSource.Source, otherID.ID = "shipping", "erp", "", "e2"
	for range 2 {
		for _, e := range []eventbus.Event[string]{base, otherGroup, otherSource, noSource, otherID} {
			require.NoError(t, handle(t.Context(), e))
		}
	}
	require.Equal(t, 5, effects(t, db))
}

func TestEventWithoutIDOrGroupIsAPermanentError(t *testing.T) {
	handle := idempotency.Once(newInbox(t, newDB(t)), effect)
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
}

func TestTransactSaysWhetherItWasADuplicate(t *testing.T) {
	inbox := newInbox(t, newDB(t))
	m := idempotency.Mark{Consumer: "importer", ID: "file-7"}
	nothing := func(context.Context, *sql.Tx) error { return nil }
	duplicate, err := inbox.Transact(t.Context(), m, nothing)
	require.NoError(t, err)
	require.False(t, duplicate)
	duplicate, err = inbox.Transact(t.Context(), m, nothing)
	require.NoError(t, err)
	require.True(t, duplicate)
}

func TestContextThatEndsRollsBack(t *testing.T) {
	db := newDB(t)
	ctx, cancel := context.WithCancel(t.Context())
	handle := idempotency.Once(newInbox(t, db), func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
		require.NoError(t, effect(ctx, tx, e))
		cancel()
		return nil
	})
	require.ErrorIs(t, handle(ctx, event("e1")), context.Canceled)
	require.Zero(t, effects(t, db))
	require.Zero(t, marks(t, db))
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

func TestWrongArgumentsAreReportedByEveryUse(t *testing.T) {
	for _, inbox := range []*idempotency.Inbox{
		idempotency.NewInbox(nil, idempotency.SQLite),
		idempotency.NewInbox(newDB(t), idempotency.Dialect{}),
		idempotency.NewInbox(newDB(t), idempotency.SQLite, idempotency.Table("1x")),
		idempotency.NewInbox(newDB(t), idempotency.SQLite, idempotency.Retention(0)),
	} {
		require.ErrorContains(t, inbox.Migrate(t.Context()), "idempotency: NewInbox: ")
		require.ErrorContains(t, inbox.Run(t.Context()), "idempotency: NewInbox: ")
		require.ErrorContains(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")), "idempotency: NewInbox: ")
		_, err := inbox.Prune(t.Context())
		require.ErrorContains(t, err, "idempotency: NewInbox: ")
		require.Empty(t, inbox.Schema())
	}
}

func TestMissingTableIsAClearError(t *testing.T) {
	inbox := idempotency.NewInbox(newDB(t), idempotency.SQLite)
	require.ErrorContains(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")), "call Migrate, or apply Schema")
}

func TestMigrateBySeveralProcessesAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	var wg sync.WaitGroup
	for range 6 {
		inbox := idempotency.NewInbox(open(t, path), idempotency.SQLite)
		wg.Go(func() {
			if err := inbox.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	_, err := open(t, path).Exec(idempotency.NewInbox(open(t, path), idempotency.SQLite).Schema())
	require.NoError(t, err, "the schema may be applied again")
}

// fillMarks writes marks of the given age.
func fillMarks(t testing.TB, db *sql.DB, n int, age time.Duration) {
	t.Helper()
	_, err := db.Exec(`WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < ?)
		INSERT INTO millrace_inbox SELECT 'billing', 'shop', ? || '-' || i, ? FROM c`,
		n, age.String(), time.Now().Add(-age).UnixMilli())
	require.NoError(t, err)
}

// Inbox marks kept for less time than a dead letter may wait: the default is 30
// days. Unbounded DELETE; a cleaner never implemented (Rebus.SqlServer#108).
func TestPruneDeletesOldMarksInSteps(t *testing.T) {
	db := newDB(t)
	inbox := newInbox(t, db)
	fillMarks(t, db, 2500, 31*24*time.Hour)
	fillMarks(t, db, 40, 29*24*time.Hour)
	n, err := inbox.Prune(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 2500, n)
	require.Equal(t, 40, marks(t, db))
	rows, err := db.Query("EXPLAIN QUERY PLAN "+idempotency.PruneQuery(db), 1, 1)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
		require.NotContains(t, detail, "SCAN", "cost must not grow with the marks that are kept")
	}
	require.NoError(t, rows.Err())
}

func TestRunPrunesUntilItsContextEnds(t *testing.T) {
	db := newDB(t)
	inbox := newInbox(t, db, idempotency.Retention(time.Hour))
	fillMarks(t, db, 1500, 2*time.Hour)
	fillMarks(t, db, 1, time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- inbox.Run(ctx) }()
	require.Eventually(t, func() bool { return marks(t, db) == 1 }, 30*time.Second, 5*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
}
