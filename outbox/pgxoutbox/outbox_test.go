package pgxoutbox_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/internal/roundtrips"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newPool(t testing.TB, db testdb.DB, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	c, err := pgxpool.ParseConfig(db.DSN)
	require.NoError(t, err)
	if change != nil {
		change(c)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func newBox(t testing.TB, pool *pgxpool.Pool) *pgxoutbox.Outbox {
	t.Helper()
	box := pgxoutbox.New(pool, outbox.Logger(slog.New(slog.DiscardHandler)))
	require.NoError(t, box.Migrate(t.Context()))
	t.Cleanup(func() { require.NoError(t, box.Close()) })
	return box
}

func event(ctx context.Context, id string) *message.Message {
	m := message.NewMessage(id, []byte("payload of "+id))
	m.SetContext(ctx)
	return m
}

// sink hands out the ids of what it is given.
type sink chan string

func (s sink) Publish(_ string, messages ...*message.Message) error {
	for _, m := range messages {
		s <- m.UUID
	}
	return nil
}

func (sink) Close() error { return nil }

func (s sink) await(t testing.TB, want ...string) {
	t.Helper()
	for _, id := range want {
		select {
		case got := <-s:
			require.Equal(t, id, got)
		case <-time.After(20 * time.Second):
			require.FailNow(t, "not published in time", id)
		}
	}
}

func start(t testing.TB, r *pgxoutbox.Relay) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); require.NoError(t, <-done) })
	t.Cleanup(stop)
	return stop
}

func TestPublishedIfAndOnlyIfTheTransactionCommits(t *testing.T) {
	box := newBox(t, newPool(t, testdb.New(t, outbox.Postgres), nil))
	to := make(sink, 100)
	start(t, box.Relay(to))
	undone := errors.New("undone")
	err := box.Transact(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		require.NoError(t, box.In(tx).Publish("orders", event(ctx, "never")))
		return undone
	})
	require.ErrorIs(t, err, undone)
	require.NoError(t, box.Transact(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		require.NoError(t, box.In(tx).Publish("orders", event(ctx, "1"), event(ctx, "2"), event(ctx, "3")))
		nested := pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error {
			require.NoError(t, box.In(savepoint).Publish("orders", event(ctx, "rolled back to the savepoint")))
			return undone
		})
		require.ErrorIs(t, nested, undone)
		return box.In(tx).Publish("orders", event(ctx, "4"))
	}))
	got := map[string]bool{}
	for range 4 {
		got[<-to] = true
	}
	require.Equal(t, map[string]bool{"1": true, "2": true, "3": true, "4": true}, got)
}

func TestBatchIsOneTransaction(t *testing.T) {
	pool := newPool(t, testdb.New(t, outbox.Postgres), nil)
	box := newBox(t, pool)
	_, err := pool.Exec(t.Context(), "CREATE TABLE orders (id int PRIMARY KEY)")
	require.NoError(t, err)
	send := func(ids ...string) error {
		b := &pgx.Batch{}
		b.Queue("INSERT INTO orders VALUES (1)")
		for _, id := range ids {
			require.NoError(t, box.InBatch(b).Publish("orders", event(t.Context(), id)))
		}
		return box.Send(t.Context(), b)
	}
	to := make(sink, 10)
	start(t, box.Relay(to))
	require.NoError(t, send("1"))
	require.ErrorContains(t, send("2"), "pgxoutbox: send a batch: ERROR: duplicate key")
	_, err = pool.Exec(t.Context(), "DELETE FROM orders")
	require.NoError(t, err)
	require.NoError(t, send("3"))
	to.await(t, "1", "3")
}

func TestRoundTrips(t *testing.T) {
	var count roundtrips.Counter
	pool := newPool(t, testdb.New(t, outbox.Postgres), func(c *pgxpool.Config) {
		c.MaxConns = 1
		c.ConnConfig.DialFunc = count.Dial
	})
	box := newBox(t, pool)
	inbox := pgxinbox.New(pool)
	t.Cleanup(func() { require.NoError(t, inbox.Close()) })
	require.NoError(t, inbox.Migrate(t.Context()))
	handled := 0
	_, err := pool.Exec(t.Context(), "CREATE TABLE orders (id bigserial PRIMARY KEY, n int)")
	require.NoError(t, err)
	many := make([]*message.Message, 100)
	for i := range many {
		many[i] = event(t.Context(), "many")
	}
	for _, c := range []struct {
		name string
		want int64
		run  func() error
	}{
		{"business alone: begin, insert, commit", 3, func() error {
			return box.Transact(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "INSERT INTO orders (n) VALUES ($1)", 1)
				return err
			})
		}},
		{"an event takes none: it is sent with the commit", 3, func() error {
			return box.Transact(t.Context(), func(_ context.Context, tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), "INSERT INTO orders (n) VALUES ($1)", 1); err != nil {
					return err
				}
				return box.In(tx).Publish("orders", event(t.Context(), "1")) // not the context of Transact: no NOTIFY
			})
		}},
		{"a hundred neither", 3, func() error {
			return box.Transact(t.Context(), func(_ context.Context, tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), "INSERT INTO orders (n) VALUES ($1)", 1); err != nil {
					return err
				}
				return box.In(tx).Publish("orders", many...)
			})
		}},
		{"nor in a transaction of the inbox: begin with the mark, insert, commit", 3, func() error {
			handled++
			mark := idempotency.Mark{Consumer: "shop", Source: "test", ID: strconv.Itoa(handled)}
			_, err := inbox.Transact(t.Context(), mark, func(_ context.Context, tx pgx.Tx) error {
				if _, err := tx.Exec(t.Context(), "INSERT INTO orders (n) VALUES ($1)", 1); err != nil {
					return err
				}
				return box.In(tx).Publish("orders", event(t.Context(), "1"))
			})
			return err
		}},
		{"a batch takes one in all", 1, func() error {
			b := &pgx.Batch{}
			b.Queue("INSERT INTO orders (n) VALUES ($1)", 1)
			if err := box.InBatch(b).Publish("orders", many...); err != nil {
				return err
			}
			return pool.SendBatch(t.Context(), b).Close()
		}},
	} {
		require.NoError(t, c.run(), "statements are prepared now")
		before := count.Load()
		require.NoError(t, c.run())
		require.Equal(t, c.want, count.Load()-before, c.name)
	}
}

func TestEventsAreHeldBackUntilTheNextStatement(t *testing.T) {
	pool := newPool(t, testdb.New(t, outbox.Postgres), func(c *pgxpool.Config) { c.MaxConns = 1 })
	box := newBox(t, pool)
	count := func(ctx context.Context, tx pgx.Tx) (n int) {
		require.NoError(t, tx.QueryRow(ctx, "SELECT count(*) FROM millrace_outbox").Scan(&n))
		return n
	}
	undone := errors.New("undone")
	require.NoError(t, box.Transact(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		first := event(ctx, "1")
		require.NoError(t, box.In(tx).Publish("orders", first))
		copy(first.Payload, "changed")
		require.Equal(t, 1, count(ctx, tx))
		require.NoError(t, box.In(tx).Publish("orders", event(ctx, "2"), event(ctx, "3")))
		require.ErrorIs(t, pgx.BeginFunc(ctx, tx, func(nested pgx.Tx) error {
			require.Equal(t, 3, count(ctx, nested))
			require.NoError(t, box.In(tx).Publish("orders", event(ctx, "not by the nested one, but within it")))
			return undone
		}), undone)
		require.Equal(t, 3, count(ctx, tx))
		return box.In(tx).Publish("orders", event(ctx, "4"))
	}))
	rows, err := pool.Query(t.Context(), "SELECT convert_from(payload, 'UTF8') FROM millrace_outbox ORDER BY position")
	require.NoError(t, err)
	payloads, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{"payload of 1", "payload of 2", "payload of 3", "payload of 4"}, payloads)
}

func TestAnEventThatCannotBeWrittenFailsTheTransaction(t *testing.T) {
	pool := newPool(t, testdb.New(t, outbox.Postgres), func(c *pgxpool.Config) { c.MaxConns = 1 })
	box := newBox(t, pool)
	_, err := pool.Exec(t.Context(), `CREATE TABLE orders (id int); ALTER TABLE millrace_outbox ADD CHECK (topic <> 'refused')`)
	require.NoError(t, err)
	var process int
	for _, then := range []func(ctx context.Context, tx pgx.Tx) error{
		func(context.Context, pgx.Tx) error { return nil },
		func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Exec(ctx, "SELECT 1"); return err },
		func(ctx context.Context, tx pgx.Tx) error { return tx.QueryRow(ctx, "SELECT 1").Scan(new(int)) },
		func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Query(ctx, "SELECT 1"); return err },
		func(ctx context.Context, tx pgx.Tx) error { _, err := tx.Begin(ctx); return err },
		func(ctx context.Context, tx pgx.Tx) error { _ = tx.Conn(); return nil },
	} {
		err := box.Transact(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "INSERT INTO orders VALUES (1)")
			require.NoError(t, err)
			require.NoError(t, box.In(tx).Publish("refused", event(ctx, "1")))
			return then(ctx, tx)
		})
		require.Error(t, err)
		var n, pid int
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM millrace_outbox), pg_backend_pid()").Scan(&n, &pid))
		require.Zero(t, n)
		if process == 0 {
			process = pid
		}
		require.Equal(t, process, pid, "the connection is as good as before")
	}
}

// The poll is a minute apart, so that only a notification can have woken the
// relay.
func TestRelayOfAnotherProcessWakesUp(t *testing.T) {
	db := testdb.New(t, outbox.Postgres)
	theirs, ours := newBox(t, newPool(t, db, nil)), newBox(t, newPool(t, db, nil))
	to := make(sink, 10)
	relay := theirs.Relay(to, outbox.Poll(time.Minute))
	start(t, relay)
	write := func(id string) {
		require.NoError(t, ours.Transact(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
			return ours.In(tx).Publish("orders", event(ctx, id))
		}))
	}
	require.Eventually(t, func() bool {
		var listening bool
		err := db.QueryRow("SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%')").Scan(&listening)
		return err == nil && listening && relay.Active()
	}, 10*time.Second, 5*time.Millisecond)
	write("1")
	to.await(t, "1")
	write("2")
	to.await(t, "2")
}

// Passwords that change are set before each connection, roles after it.
func TestListenerConnectsAsThePoolDoes(t *testing.T) {
	db := testdb.New(t, outbox.Postgres)
	pool := newPool(t, db, func(c *pgxpool.Config) {
		port := c.ConnConfig.Port
		c.ConnConfig.Port = 1
		c.BeforeConnect = func(_ context.Context, config *pgx.ConnConfig) error { config.Port = port; return nil }
		c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SET application_name = 'made by the pool'")
			return err
		}
	})
	box := newBox(t, pool)
	start(t, box.Relay(make(sink)))
	require.Eventually(t, func() bool {
		var listening bool
		err := db.QueryRow(`SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE 'LISTEN%' AND application_name = 'made by the pool')`).Scan(&listening)
		return err == nil && listening
	}, 20*time.Second, 5*time.Millisecond)
}

func TestBadArgumentsAreReportedByEveryUse(t *testing.T) {
	box := pgxoutbox.New(nil)
	want := "outbox: New: the database is nil"
	require.EqualError(t, box.Migrate(t.Context()), want)
	require.EqualError(t, box.Send(t.Context(), &pgx.Batch{}), want)
	require.EqualError(t, box.Transact(t.Context(), nil), want)
	require.EqualError(t, box.In(nil).Publish("orders", event(t.Context(), "1")), want)
	require.EqualError(t, box.Relay(make(sink)).Run(t.Context()), want)
	require.NoError(t, box.Close())
	box = newBox(t, newPool(t, testdb.New(t, outbox.Postgres), nil))
	require.ErrorContains(t, box.In(nil).Publish("orders", event(t.Context(), "1")), "In was given a nil transaction")
	require.ErrorContains(t, box.InBatch(nil).Publish("orders", event(t.Context(), "1")), "InBatch was given a nil batch")
}

// For poolers in transaction mode pgx is told to use a protocol in which columns
// may come as text: a position of eight digits must not pass for a binary one.
func TestModesForPoolers(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec} {
		t.Run(mode.String(), func(t *testing.T) {
			pool := newPool(t, testdb.New(t, outbox.Postgres), func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode })
			box := newBox(t, pool)
			_, err := pool.Exec(t.Context(), "ALTER TABLE millrace_outbox ALTER COLUMN position RESTART WITH 12345678")
			require.NoError(t, err)
			to := make(sink, 10)
			start(t, box.Relay(to))
			require.NoError(t, box.Transact(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
				return box.In(tx).Publish("orders", event(ctx, "1"))
			}))
			to.await(t, "1")
			require.NoError(t, box.Transact(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
				return box.In(tx).Publish("orders", event(ctx, "2"), event(ctx, "3"))
			}))
			require.ElementsMatch(t, []string{"2", "3"}, []string{<-to, <-to})
		})
	}
}
