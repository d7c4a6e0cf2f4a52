package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

// Reading by auto-increment id skips rows that commit late (watermill#311), and
// waiting for the oldest transaction stalls everything behind a long one.
func TestRowsThatCommitLateAreNeitherSkippedNorWaitedFor(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		stop := start(t, box.Relay(to))
		late := openTx(t, db, box, "orders", msg("late", "k"))
		for i := range 50 {
			enqueue(t, box, "orders", msg(strconv.Itoa(i), ""))
		}
		to.awaitCount(t, 50)
		require.NoError(t, late.Commit())
		got := to.awaitCount(t, 51)
		require.Equal(t, "late", got[50].id)
		require.NoError(t, stop())
		require.Zero(t, count(t, db, "SELECT count(*) FROM millrace_outbox"))
	})
}

// What is missing is part of what is recorded: a relay that takes over looks for
// it, and publishes nothing else again, also when published rows are kept.
func TestGapsOutliveTheRelay(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		first := openTx(t, db, box, "orders", msg("first", ""))
		enqueue(t, box, "orders", msg("second", ""))
		to := newSink()
		stop := start(t, box.Relay(to, outbox.Retention(time.Hour)))
		to.awaitCount(t, 1)
		require.NoError(t, stop())
		s, err := box.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, 1, s.Gaps)
		require.NoError(t, first.Commit())
		stop = start(t, box.Relay(to, outbox.Retention(time.Hour)))
		to.awaitCount(t, 2)
		enqueue(t, box, "orders", msg("third", ""))
		to.awaitCount(t, 3)
		require.NoError(t, stop())
		require.Equal(t, []string{"second", "first", "third"}, to.ids())
	})
}

// What was rolled back is forgotten in the end, or the relay would look for more
// and more. What an open transaction may still bring is not.
func TestGapsAreForgottenWhenNobodyCanFillThem(t *testing.T) {
	defer outbox.SetPatience(500 * time.Millisecond)()
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		undone := errors.New("undone")
		for i := range 20 {
			err := box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				m := msg("undone", "")
				m.SetContext(ctx)
				if err := box.In(tx).Publish("orders", m, m, m); err != nil || i%2 == 0 {
					return errors.Join(err, undone)
				}
				return nil
			})
			require.Equal(t, i%2 == 0, errors.Is(err, undone))
		}
		to := newSink()
		stop := start(t, box.Relay(to, outbox.Lease(400*time.Millisecond))) // recorded at least every 100 ms
		to.awaitCount(t, 30)
		late := openTx(t, db, box, "orders", msg("late", ""))
		enqueue(t, box, "orders", msg("early", ""))
		to.awaitCount(t, 31)
		gaps := func(n int) func() bool {
			return func() bool {
				s, err := box.Stats(t.Context())
				return err == nil && s.Gaps == n
			}
		}
		if db.Dialect == outbox.MySQL { // a lock tells them apart; on PostgreSQL the oldest transaction decides
			eventually(t, "only what is open is missing", gaps(1))
		}
		require.NoError(t, late.Commit())
		eventually(t, "nothing is missing", gaps(0))
		to.awaitCount(t, 32)
		require.NoError(t, stop())
	})
}

// A gap-aware reader forgets a missing id too early if its transaction took it
// before it had an id of its own: no snapshot names it then. Every position must
// be taken by a transaction that has one.
func TestWritersHaveATransactionIDBeforeAPosition(t *testing.T) {
	db := testdb.New(t, outbox.Postgres)
	box := newBox(t, db)
	for _, statement := range []string{
		`CREATE FUNCTION checked() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
			IF pg_current_xact_id_if_assigned() IS NULL THEN RAISE 'a position before the transaction has an id'; END IF;
			RETURN nextval('millrace_outbox_position_seq'); END $$`,
		`ALTER TABLE millrace_outbox ALTER COLUMN position DROP IDENTITY`,
		`CREATE SEQUENCE millrace_outbox_position_seq`,
		`ALTER TABLE millrace_outbox ALTER COLUMN position SET DEFAULT checked()`,
	} {
		_, err := db.Exec(statement)
		require.NoError(t, err)
	}
	enqueue(t, box, "orders", msg("1", ""))
	enqueue(t, box, "orders", msg("2", ""), msg("3", ""), msg("4", ""))
	_, err := db.Exec("INSERT INTO millrace_outbox (topic, created_at, id, key, metadata, payload) VALUES ('t', 1, 'a', '', '', ''), ('t', 1, 'b', '', '', '')")
	require.NoError(t, err)
	require.Equal(t, 6, count(t, db, "SELECT count(*) FROM millrace_outbox"))
	_, err = db.Exec("SELECT checked()")
	require.ErrorContains(t, err, "a position before", "the check would have noticed")
}

// A sequence that caches hands out lower values later; see traps of the outbox.
func TestLogThatCouldLoseEventsIsRefused(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		if db.Dialect == outbox.MySQL {
			db.DSN += "?auto_increment_increment=3"
			err := outbox.New(db.Open(t), db.Dialect).Relay(newSink()).Run(t.Context())
			require.ErrorContains(t, err, "auto_increment_increment is 3, as in a cluster with several primaries; it must be 1")
			return
		}
		_, err := db.Exec(`ALTER TABLE millrace_outbox ALTER COLUMN position SET CACHE 20`)
		require.NoError(t, err)
		require.ErrorContains(t, box.Relay(newSink()).Run(t.Context()),
			"table millrace_outbox: the sequence of column position must have CACHE 1 and INCREMENT 1, it has 20 and 1")
	})
}

// A held snapshot bloats DELETE-based queues until they time out: each round
// would look at all rows that are deleted and can't be removed. Here no step may
// look at more rows than it takes.
func TestHeldSnapshotDoesNotSlowTheRelay(t *testing.T) {
	db := testdb.New(t, outbox.Postgres)
	box := newBox(t, db)
	report, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	require.NoError(t, err)
	defer func() { _ = report.Rollback() }()
	var n int
	require.NoError(t, report.QueryRow("SELECT count(*) FROM millrace_outbox").Scan(&n))
	looked := func() int {
		return count(t, db, "SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'millrace_outbox_pkey'")
	}
	publish := func(events int) {
		pool, err := sql.Open(db.Driver, db.DSN+"&application_name=relay")
		require.NoError(t, err)
		to := newSink()
		stop := start(t, outbox.New(pool, db.Dialect, outbox.Logger(slog.New(slog.DiscardHandler))).Relay(to))
		batch := make([]*message.Message, events)
		for i := range batch {
			batch[i] = msg(strconv.Itoa(i), "")
		}
		enqueue(t, box, "orders", batch...)
		to.awaitCount(t, events)
		eventually(t, "all rows are deleted", func() bool { return count(t, db, "SELECT count(*) FROM millrace_outbox") == 0 })
		require.NoError(t, stop())
		require.NoError(t, pool.Close())
		eventually(t, "its connections have ended, and so told the server what they have done", func() bool {
			return count(t, db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'relay'") == 0
		})
	}
	publish(20_000)
	before := looked()
	publish(10)
	require.Less(t, looked()-before, 2000, "index entries looked at to publish and delete ten events, beside 20,000 dead ones")
}

// pg_notify inside the writing transaction takes a lock of the whole database
// (factcast#3911).
func TestWritingTransactionSendsNoNotify(t *testing.T) {
	db := testdb.New(t, outbox.Postgres)
	box := newBox(t, db)
	listening, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer listening.Close()
	require.NoError(t, box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		if err := box.In(tx).Publish("orders", msg("1", "")); err != nil {
			return err
		}
		var locks int
		err := tx.QueryRow("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype IN ('object', 'advisory')").Scan(&locks)
		require.Zero(t, locks)
		return err
	}))
}

func TestRoutesHaveTheirOwnHealth(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		up, down := newSink(), newSink()
		down.setRefuse(func(string, []*message.Message) error { return errors.New("down") })
		relay := box.Relay(up, outbox.Route(down, "invoices", "reminders"), outbox.DrainTimeout(100*time.Millisecond))
		stop := start(t, relay)
		for i := range 20 {
			enqueue(t, box, []string{"invoices", "orders", "reminders"}[i%3], msg(strconv.Itoa(i), strconv.Itoa(i)))
		}
		up.awaitCount(t, 7)
		require.Empty(t, down.all())
		eventually(t, "one is refused by itself", func() bool { return relay.Counters().Refused > 0 })
		down.setRefuse(nil)
		down.awaitCount(t, 13)
		require.NoError(t, stop())
		c := relay.Counters()
		require.EqualValues(t, 20, c.Published)
		require.NotZero(t, c.Refused)
		require.Zero(t, c.Parked)
	})
	box := newBox(t, newDB(t))
	err := box.Relay(newSink(), outbox.Route(nil, "a"), outbox.Route(newSink(), "b", "b"), outbox.Route(newSink())).Run(t.Context())
	for _, want := range []string{`the publisher of Route(["a"]) is nil`, `topic "b" has two routes`, "names no topic"} {
		require.ErrorContains(t, err, want)
	}
}

func TestFullBacklogRefusesClearly(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db, outbox.MaxBacklog(5))
		enqueue(t, box, "orders", msg("1", ""), msg("2", ""), msg("3", ""), msg("4", ""), msg("5", ""))
		var err error
		eventually(t, "the backlog is full", func() bool {
			err = box.Transact(t.Context(), func(_ context.Context, tx *sql.Tx) error { return box.In(tx).Publish("orders", msg("6", "")) })
			return err != nil
		})
		require.ErrorIs(t, err, outbox.ErrBacklog)
		require.ErrorContains(t, err, `outbox: enqueue topic "orders" event 6: about `)
		require.False(t, eventbus.IsPermanent(err), "it may be tried again")
		stop := start(t, box.Relay(newSink()))
		eventually(t, "there is room", func() bool {
			return box.Transact(t.Context(), func(_ context.Context, tx *sql.Tx) error { return box.In(tx).Publish("orders", msg("7", "")) }) == nil
		})
		require.NoError(t, stop())
	})
	require.ErrorContains(t, outbox.New(newDB(t).DB, outbox.SQLite, outbox.MaxBacklog(-1)).Migrate(t.Context()), "MaxBacklog must not be negative, got -1")
}
