package saga_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/internal/storetest"
	"github.com/millrace-go/millrace/saga/sagatest"
)

// stored is a store on an empty database, with what it stands on.
type stored struct {
	*saga.SQLStore
	db    testdb.DB
	box   *outbox.Outbox
	inbox *idempotency.Inbox
}

// newStored returns a store whose inbox forgets at once, so that duplicates are
// found in the database.
func newStored(t testing.TB, db testdb.DB, opts ...saga.StoreOption) stored {
	t.Helper()
	s := openStored(db, opts...)
	require.NoError(t, s.box.Migrate(t.Context()))
	require.NoError(t, s.inbox.Migrate(t.Context()))
	require.NoError(t, s.Migrate(t.Context()))
	return s
}

func openStored(db testdb.DB, opts ...saga.StoreOption) stored {
	s := stored{db: db, box: outbox.New(db.DB, db.Dialect, outbox.Logger(discard)), inbox: idempotency.NewInbox(db.DB, db.Dialect, idempotency.Recent(0))}
	s.SQLStore = saga.NewSQLStore(db.DB, db.Dialect, s.box, s.inbox, opts...)
	return s
}

func eachStored(t *testing.T, test func(t *testing.T, s stored)) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) { test(t, newStored(t, db)) })
}

func countOf(t testing.TB, db testdb.DB, from string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM "+from).Scan(&n))
	return n
}

func TestSQLStoreConformance(t *testing.T) {
	eachStored(t, conforms)
}

// conforms runs the suite, on tables that are empty for each row.
func conforms(t *testing.T, s stored) {
	sagatest.RunStore(t, func(t *testing.T) sagatest.Opened {
		for _, table := range tableNames {
			_, err := s.db.Exec("DELETE FROM " + table)
			require.NoError(t, err)
		}
		return sagatest.Opened{Store: s, Messages: func(t *testing.T) []saga.Message { return storetest.Published(t, s.db.DB) }}
	})
}

var tableNames = []string{
	"millrace_saga", "millrace_saga_history", "millrace_saga_definitions", "millrace_inbox", "millrace_outbox", "millrace_outbox_scheduled",
}

// transition is one of an instance, by an event of its own.
func transition(id string, revision int64) saga.Commit {
	at := time.Now().UTC().Truncate(time.Millisecond)
	i := saga.Instance{Saga: "s", ID: id, Version: 1, Revision: revision, Status: saga.Running, StateVersion: 1, Created: at, Updated: at,
		State: []byte(`{"total":100,"lines":[{"sku":"a","count":1}]}`), Progress: []byte(`{"steps":{"reserve":{"status":"waiting"}}}`)}
	event := fmt.Sprintf("e-%s-%d", id, revision)
	m := message.NewMessage("m-"+event, []byte(`{"order":1}`))
	return saga.Commit{
		Consumer: "shop.s", Source: "stock", EventID: event, Instance: i,
		Entry:    saga.Entry{Saga: "s", ID: id, Revision: revision, At: at, Event: "stock.reserved", EventID: event, From: "a", To: "b", State: i.State, Emitted: []string{"stock.reserve"}},
		Messages: []saga.Message{{Topic: "stock.reserve", Message: m}},
	}
}

// The settings of drivers change how statements travel and what they say about
// affected rows.
func TestSQLStoreConformanceWithSettingsOfDrivers(t *testing.T) {
	for _, c := range []struct {
		dialect  saga.Dialect
		settings string
	}{
		{saga.Postgres, "&default_query_exec_mode=simple_protocol"},
		{saga.Postgres, "&default_transaction_isolation=serializable"},
		{saga.MySQL, "?clientFoundRows=true&collation=latin1_swedish_ci&interpolateParams=true"},
		{saga.MySQL, "?tx_isolation=%27SERIALIZABLE%27&clientFoundRows=true"},
	} {
		t.Run(c.dialect.String()+" "+c.settings[1:], func(t *testing.T) {
			db := testdb.New(t, c.dialect)
			db.DSN += c.settings
			db.DB = db.Open(t)
			conforms(t, newStored(t, db))
		})
	}
}

// What the outbox refuses is permanent, and nothing is left of the transition.
func TestMessageThatCannotBePublished(t *testing.T) {
	eachStored(t, func(t *testing.T, s stored) {
		for _, m := range []saga.Message{{Topic: "t", Message: message.NewMessage("", nil)}, {Topic: "no topic", Message: message.NewMessage("1", nil)}, {Topic: "t"}} {
			c := transition("1", 1)
			c.Messages = append(c.Messages, m)
			err := s.Commit(t.Context(), c)
			require.ErrorContains(t, err, "saga: commit in millrace_saga: ")
			require.True(t, eventbus.IsPermanent(err), err)
		}
		for _, table := range tableNames {
			require.Zero(t, countOf(t, s.db, table), table)
		}
		require.NoError(t, s.Commit(t.Context(), transition("1", 1)))
	})
}

func TestInstanceThatCannotBeStored(t *testing.T) {
	eachStored(t, func(t *testing.T, s stored) {
		for want, change := range map[string]func(*saga.Instance){
			"the name of the saga must have 1 to 249 bytes": func(i *saga.Instance) { i.Saga = "" },
			"and no zero byte":        func(i *saga.Instance) { i.Saga = "a\x00" },
			"1 to 512 bytes, got 0":   func(i *saga.Instance) { i.ID = "" },
			"1 to 512 bytes, got 513": func(i *saga.Instance) { i.ID = strings.Repeat("x", 513) },
			"the revision must be":    func(i *saga.Instance) { i.Revision = 0 },
			"is no status":            func(i *saga.Instance) { i.Status = saga.Status(strings.Repeat("x", 250)) },
		} {
			c := transition("1", 1)
			change(&c.Instance)
			err := s.Commit(t.Context(), c)
			require.ErrorContains(t, err, want)
			require.True(t, eventbus.IsPermanent(err))
		}
		c := transition(strings.Repeat("x", 512), 1)
		c.Instance.Saga = strings.Repeat("s", 249)
		require.NoError(t, s.Commit(t.Context(), c))
		i, err := s.Load(t.Context(), c.Instance.Saga, c.Instance.ID)
		require.NoError(t, err)
		require.Equal(t, c.Instance, i)
	})
}

// An event that was handled lately in this process costs no round trip.
func TestRememberedDuplicateNeedsNoDatabase(t *testing.T) {
	s := newStored(t, testdb.New(t, saga.SQLite))
	pool := s.db.Open(t)
	store := saga.NewSQLStore(pool, saga.SQLite, outbox.New(pool, saga.SQLite), idempotency.NewInbox(pool, saga.SQLite))
	require.NoError(t, store.Commit(t.Context(), transition("1", 1)))
	require.NoError(t, pool.Close())
	again := transition("1", 2)
	again.EventID = "e-1-1"
	require.ErrorIs(t, store.Commit(t.Context(), again), saga.ErrDuplicate)
}

func TestCommitWakesTheRelay(t *testing.T) {
	eachStored(t, func(t *testing.T, s stored) {
		open := func(to message.Publisher) storetest.Relay {
			return s.box.Relay(to, outbox.Poll(time.Minute), outbox.Lease(time.Minute))
		}
		storetest.CommitWakesTheRelay(t, s, open, transition)
	})
}

func TestSQLStoreWithoutItsTablesSaysWhatToDo(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		s := openStored(db)
		const want = "call Migrate, or apply Schema"
		require.ErrorContains(t, s.Commit(t.Context(), transition("1", 1)), want)
		_, err := s.Load(t.Context(), "s", "1")
		require.ErrorContains(t, err, want)
		_, err = s.Pin(t.Context(), "s", 1, "f")
		require.ErrorContains(t, err, want)
		_, err = s.Prune(t.Context(), time.Hour)
		require.ErrorContains(t, err, want)
	})
}

func TestSQLStoreSchemaMayBeAppliedByHand(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		s := openStored(db)
		for range 2 {
			for statement := range strings.SplitSeq(strings.TrimSuffix(s.Schema(), ";\n"), ";\n\n") {
				_, err := db.Exec(statement)
				require.NoError(t, err, statement)
			}
		}
		require.NoError(t, s.box.Migrate(t.Context()))
		require.NoError(t, s.inbox.Migrate(t.Context()))
		require.NoError(t, s.Migrate(t.Context()))
		require.NoError(t, s.Commit(t.Context(), transition("1", 1)))
		require.NoError(t, s.Commit(t.Context(), transition("1", 2)))
	})
}

func TestSQLStoreInASchema(t *testing.T) {
	for d, schema := range map[saga.Dialect]string{saga.SQLite: "main", saga.Postgres: "shop", saga.MySQL: ""} {
		t.Run(d.String(), func(t *testing.T) {
			db := testdb.New(t, d)
			switch d {
			case saga.Postgres:
				_, err := db.Exec("CREATE SCHEMA shop")
				require.NoError(t, err)
			case saga.MySQL:
				require.NoError(t, db.QueryRow("SELECT database()").Scan(&schema))
			}
			s := newStored(t, db, saga.Table(schema+".sagas"))
			require.NoError(t, s.Migrate(t.Context()))
			require.NoError(t, s.Commit(t.Context(), transition("1", 1)))
			require.NoError(t, s.Commit(t.Context(), transition("1", 2)))
			require.Equal(t, 1, countOf(t, db, schema+".sagas"))
			require.Equal(t, 2, countOf(t, db, schema+".sagas_history"))
			for _, q := range []saga.Query{{Saga: "s"}, {Saga: "s", ID: "1"}} {
				all, err := s.List(t.Context(), q)
				require.NoError(t, err)
				require.Len(t, all, 1)
			}
			_, err := s.Prune(t.Context(), 0)
			require.NoError(t, err)
		})
	}
}

func TestWrongArgumentsOfSQLStoresAreReportedByEveryUse(t *testing.T) {
	db := testdb.New(t, saga.SQLite)
	box, inbox := outbox.New(db.DB, saga.SQLite), idempotency.NewInbox(db.DB, saga.SQLite)
	for want, s := range map[string]*saga.SQLStore{
		"the database is nil": saga.NewSQLStore(nil, saga.SQLite, box, inbox),
		"the outbox is nil":   saga.NewSQLStore(db.DB, saga.SQLite, nil, inbox),
		"the inbox is nil":    saga.NewSQLStore(db.DB, saga.SQLite, box, nil),
		"the zero value":      saga.NewSQLStore(db.DB, saga.Dialect{}, box, inbox),
		"table prefix":        saga.NewSQLStore(db.DB, saga.SQLite, box, inbox, saga.Table("1; DROP")),
		"must be positive":    saga.NewSQLStore(db.DB, saga.SQLite, box, inbox, saga.Retention(0)),
	} {
		ctx := t.Context()
		_, load := s.Load(ctx, "s", "1")
		_, history := s.History(ctx, "s", "1")
		_, list := s.List(ctx, saga.Query{})
		_, count := s.Count(ctx, "s")
		_, pin := s.Pin(ctx, "s", 1, "f")
		_, prune := s.Prune(ctx, time.Hour)
		for _, err := range []error{load, history, list, count, pin, prune, s.Migrate(ctx), s.Run(ctx), s.Commit(ctx, transition("1", 1))} {
			require.ErrorContains(t, err, "saga: NewSQLStore: ")
			require.ErrorContains(t, err, want)
		}
		require.Empty(t, s.Schema())
	}
}

// Cost must not grow with what has ended.
func TestListsAreFoundByIndexes(t *testing.T) {
	db := testdb.New(t, saga.SQLite)
	newStored(t, db)
	for _, q := range []saga.Query{
		{Saga: "s"}, {Saga: "s", Status: []saga.Status{saga.Running}}, {Saga: "s", ID: "abc"}, {Saga: "s", ID: "abc", Status: []saga.Status{saga.Stuck}, Before: time.Now()},
		{Saga: "s", RecoverableAt: time.Now()},
	} {
		statement, args := saga.ListStatement(saga.SQLite, q)
		rows, err := db.Query("EXPLAIN QUERY PLAN "+statement, args...)
		require.NoError(t, err)
		defer rows.Close()
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
			plan = append(plan, detail)
		}
		require.NoError(t, rows.Err())
		how := "SEARCH millrace_saga USING COVERING INDEX millrace_saga_listed (saga=? AND status=? AND rested_at<?)"
		switch {
		case !q.RecoverableAt.IsZero():
			how = "SEARCH millrace_saga USING INDEX millrace_saga_listed (saga=? AND status=? AND rested_at>? AND rested_at<?)"
		case slices.Equal(q.Status, []saga.Status{saga.Running}):
			how = "SEARCH millrace_saga USING INDEX millrace_saga_listed (saga=? AND status=?)"
		case q.ID != "":
			how = "SEARCH millrace_saga USING INDEX sqlite_autoindex_millrace_saga_1 (saga=? AND id>? AND id<?)"
		}
		require.True(t, slices.Contains(plan, how), strings.Join(plan, "\n"))
		for _, step := range plan {
			require.NotContains(t, step, "SCAN millrace_saga")
		}
	}
}

// PostgreSQL can't find an instance by the index for lists, which goes through
// all instances of the saga for it: before it knows that the table is large it may
// find that as good as the key, and keep the plan.
func TestInstancesAreFoundByTheirKeyOnly(t *testing.T) {
	db := testdb.New(t, saga.Postgres)
	newStored(t, db)
	conn, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	plan := func(statement string, args ...any) string {
		rows, err := conn.QueryContext(t.Context(), "EXPLAIN "+statement, args...)
		require.NoError(t, err)
		defer rows.Close()
		var lines []string
		for rows.Next() {
			var line string
			require.NoError(t, rows.Scan(&line))
			lines = append(lines, line)
		}
		require.NoError(t, rows.Err())
		return strings.Join(lines, "\n")
	}
	for _, statement := range []string{"SET enable_seqscan = off", "SET enable_bitmapscan = off", "ALTER TABLE millrace_saga DROP CONSTRAINT millrace_saga_pkey"} {
		_, err := conn.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	require.Contains(t, plan("UPDATE millrace_saga SET revision = 2 WHERE saga = 's' AND id = 'i' AND revision = 1"), "Seq Scan")
	for _, q := range []saga.Query{{Saga: "s"}, {Saga: "s", Status: []saga.Status{saga.Running}}, {Saga: "s", RecoverableAt: time.Now()}} {
		statement, args := saga.ListStatement(saga.Postgres, q)
		require.Contains(t, plan(statement, args...), "using millrace_saga_listed on millrace_saga")
	}
	require.Contains(t, plan(saga.CountStatement(saga.Postgres), "s"), "Index Only Scan using millrace_saga_listed")
}
