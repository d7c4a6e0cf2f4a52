package pgxoutbox_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/held"
	"github.com/millrace-go/millrace/internal/roundtrips"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
)

// openSQL opens a pool of one connection by Connector.
func openSQL(t testing.TB, db testdb.DB, change func(*pgx.ConnConfig)) *sql.DB {
	t.Helper()
	c, err := pgx.ParseConfig(db.DSN)
	require.NoError(t, err)
	if change != nil {
		change(c)
	}
	pool := sql.OpenDB(pgxoutbox.Connector(stdlib.GetConnector(*c)))
	pool.SetMaxOpenConns(1)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	return pool
}

func newSQLBox(t testing.TB, db *sql.DB) *outbox.Outbox {
	t.Helper()
	box := outbox.New(db, outbox.Postgres, outbox.Logger(slog.New(slog.DiscardHandler)))
	require.NoError(t, box.Migrate(t.Context()))
	return box
}

func execSQL(t testing.TB, db interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}, statement string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), statement, args...)
	require.NoError(t, err, statement)
}

// written returns the payloads of the log.
func written(t testing.TB, db interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT convert_from(payload, 'UTF8') FROM millrace_outbox ORDER BY position")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var payload string
		require.NoError(t, rows.Scan(&payload))
		all = append(all, payload)
	}
	require.NoError(t, rows.Err())
	return all
}

func TestRoundTripsOfConnector(t *testing.T) {
	var count roundtrips.Counter
	db := openSQL(t, testdb.New(t, outbox.Postgres), func(c *pgx.ConnConfig) { c.DialFunc = count.Dial })
	box := newSQLBox(t, db)
	inbox := idempotency.NewInbox(db, outbox.Postgres)
	require.NoError(t, inbox.Migrate(t.Context()))
	execSQL(t, db, "CREATE TABLE orders (id bigserial PRIMARY KEY, n int)")
	many := make([]*message.Message, 100)
	for i := range many {
		many[i] = event(t.Context(), "many")
	}
	handled := 0
	order := func(tx *sql.Tx) { execSQL(t, tx, "INSERT INTO orders (n) VALUES ($1)", 1) }
	for _, c := range []struct {
		name string
		want int64
		run  func() error
	}{
		{"business alone: begin, insert, commit", 3, func() error {
			return box.Transact(t.Context(), func(_ context.Context, tx *sql.Tx) error { order(tx); return nil })
		}},
		{"an event takes none: it is sent with the commit", 3, func() error {
			return box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				order(tx)
				return box.In(tx).Publish("orders", event(ctx, "1"))
			})
		}},
		{"a hundred neither", 3, func() error {
			return box.Transact(t.Context(), func(_ context.Context, tx *sql.Tx) error {
				order(tx)
				return box.In(tx).Publish("orders", many...)
			})
		}},
		{"nor in a transaction of the caller's", 3, func() error {
			tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelSerializable})
			require.NoError(t, err)
			order(tx)
			require.NoError(t, box.In(tx).Publish("orders", event(t.Context(), "1")))
			return tx.Commit()
		}},
		{"nor in one of the inbox: begin with the mark, insert, commit", 3, func() error {
			handled++
			mark := idempotency.Mark{Consumer: "shop", Source: "test", ID: strconv.Itoa(handled)}
			_, err := inbox.Transact(t.Context(), mark, func(ctx context.Context, tx *sql.Tx) error {
				order(tx)
				return box.In(tx).Publish("orders", event(ctx, "1"))
			})
			return err
		}},
		{"before another statement it takes one", 4, func() error {
			return box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
				require.NoError(t, box.In(tx).Publish("orders", event(ctx, "1")))
				order(tx)
				return nil
			})
		}},
	} {
		require.NoError(t, c.run(), "statements are prepared now")
		require.Equal(t, c.want, count.Of(func() { require.NoError(t, c.run()) }), c.name)
	}
}

// Whatever a transaction does after an event, it finds the event written.
func TestConnectorKeepsTheOrderOfStatements(t *testing.T) {
	db := openSQL(t, testdb.New(t, outbox.Postgres), nil)
	box := newSQLBox(t, db)
	older, err := db.PrepareContext(t.Context(), "SELECT count(*) FROM millrace_outbox")
	require.NoError(t, err)
	defer func() { require.NoError(t, older.Close()) }()
	for name, count := range map[string]func(tx *sql.Tx) (n int){
		"query": func(tx *sql.Tx) (n int) {
			require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT count(*) FROM millrace_outbox").Scan(&n))
			return n
		},
		"a statement prepared before": func(tx *sql.Tx) (n int) {
			require.NoError(t, tx.StmtContext(t.Context(), older).QueryRowContext(t.Context()).Scan(&n))
			return n
		},
		"a statement prepared within": func(tx *sql.Tx) (n int) {
			own, err := tx.PrepareContext(t.Context(), "SELECT count(*)::int FROM millrace_outbox")
			require.NoError(t, err)
			require.NoError(t, own.QueryRowContext(t.Context()).Scan(&n))
			return n
		},
		"exec": func(tx *sql.Tx) int {
			result, err := tx.ExecContext(t.Context(), "UPDATE millrace_outbox SET topic = topic")
			require.NoError(t, err)
			n, err := result.RowsAffected()
			require.NoError(t, err)
			return int(n)
		},
		"exec of a prepared statement": func(tx *sql.Tx) int {
			own, err := tx.PrepareContext(t.Context(), "UPDATE millrace_outbox SET id = id")
			require.NoError(t, err)
			require.NoError(t, box.In(tx).Publish("orders", event(t.Context(), "2")))
			result, err := own.ExecContext(t.Context())
			require.NoError(t, err)
			n, err := result.RowsAffected()
			require.NoError(t, err)
			return int(n) - 1
		},
	} {
		t.Run(name, func(t *testing.T) {
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			m := event(t.Context(), "1")
			require.NoError(t, box.In(tx).Publish("orders", m))
			copy(m.Payload, "changed")
			require.Equal(t, 1, count(tx))
			require.NoError(t, tx.Rollback())
			require.Empty(t, written(t, db))
		})
	}
	t.Run("the connection itself", func(t *testing.T) {
		own, err := db.Conn(t.Context())
		require.NoError(t, err)
		defer own.Close()
		tx, err := own.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, box.In(tx).Publish("orders", event(t.Context(), "1")))
		require.NoError(t, own.Raw(func(c any) error {
			var n int
			require.NoError(t, c.(interface{ Conn() *pgx.Conn }).Conn().QueryRow(t.Context(), "SELECT count(*) FROM millrace_outbox").Scan(&n))
			require.Equal(t, 1, n)
			return nil
		}))
		require.NoError(t, tx.Rollback())
	})
}

func TestConnectorReportsAnEventThatCannotBeWritten(t *testing.T) {
	db := openSQL(t, testdb.New(t, outbox.Postgres), nil)
	box := newSQLBox(t, db)
	execSQL(t, db, `CREATE TABLE orders (id int); ALTER TABLE millrace_outbox ADD CHECK (topic <> 'refused')`)
	process := 0
	for _, then := range []func(tx *sql.Tx) error{
		func(tx *sql.Tx) error { return tx.Commit() },
		func(tx *sql.Tx) error { _, err := tx.ExecContext(t.Context(), "SELECT 1"); return err },
		func(tx *sql.Tx) error { return tx.QueryRowContext(t.Context(), "SELECT 1").Scan(new(int)) },
		func(tx *sql.Tx) error { _, err := tx.PrepareContext(t.Context(), "SELECT 1"); return err },
	} {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		execSQL(t, tx, "INSERT INTO orders VALUES (1)")
		require.NoError(t, box.In(tx).Publish("refused", event(t.Context(), "1")))
		require.ErrorContains(t, then(tx), "violates check constraint")
		if err := tx.Rollback(); err != nil {
			require.ErrorIs(t, err, sql.ErrTxDone)
		}
		var n, pid int
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM millrace_outbox), pg_backend_pid()").Scan(&n, &pid))
		require.Zero(t, n)
		if process == 0 {
			process = pid
		}
		require.Equal(t, process, pid, "the connection is as good as before")
	}
	missing := outbox.New(db, outbox.Postgres, outbox.Table("nowhere"))
	require.ErrorContains(t, missing.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		return missing.In(tx).Publish("orders", event(ctx, "1"))
	}), "call Migrate, or apply Schema, before the outbox is used")
}

// The context of a transaction ends after the event was held back: nothing of it
// may stay, neither rows nor an open transaction.
func TestConnectorLeavesNothingOfACancelledTransaction(t *testing.T) {
	plain := testdb.New(t, outbox.Postgres)
	db := openSQL(t, plain, nil)
	box := newSQLBox(t, db)
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	require.NoError(t, box.In(tx).Publish("orders", event(t.Context(), "1")))
	cancel()
	require.Error(t, tx.Commit())
	require.Eventually(t, func() bool {
		var open int
		err := plain.QueryRow("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'").Scan(&open)
		return err == nil && open == 0
	}, 20*time.Second, time.Millisecond)
	require.Empty(t, written(t, db))
}

// The same without database/sql, which rolls back by itself if it comes first.
func TestConnectorClosesWhatCouldNotCommit(t *testing.T) {
	c, err := pgx.ParseConfig(testdb.New(t, outbox.Postgres).DSN)
	require.NoError(t, err)
	conn, err := pgxoutbox.Connector(stdlib.GetConnector(*c)).Connect(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	tx, err := conn.(driver.ConnBeginTx).BeginTx(ctx, driver.TxOptions{})
	require.NoError(t, err)
	cancel()
	require.ErrorIs(t, tx.Commit(), context.Canceled)
	require.True(t, conn.(interface{ Conn() *pgx.Conn }).Conn().IsClosed())
}

// Marks are sent with BEGIN: duplicates, and handlers that fail, must be told apart
// as ever.
func TestInboxOnConnector(t *testing.T) {
	var count roundtrips.Counter
	db := openSQL(t, testdb.New(t, outbox.Postgres), func(c *pgx.ConnConfig) { c.DialFunc = count.Dial })
	inbox := idempotency.NewInbox(db, outbox.Postgres, idempotency.Recent(0))
	require.NoError(t, inbox.Migrate(t.Context()))
	execSQL(t, db, "CREATE TABLE account (balance int); INSERT INTO account VALUES (0)")
	handle := func(id string, fail error) (duplicate bool, err error) {
		return inbox.Transact(t.Context(), idempotency.Mark{Consumer: "bank", Source: "test", ID: id}, func(ctx context.Context, tx *sql.Tx) error {
			execSQL(t, tx, "UPDATE account SET balance = balance + $1", 1)
			return fail
		})
	}
	undone := errors.New("undone")
	for range 2 {
		duplicate, err := handle("1", undone)
		require.ErrorIs(t, err, undone)
		require.False(t, duplicate)
	}
	for i := range 3 {
		duplicate, err := handle("1", nil)
		require.NoError(t, err)
		require.Equal(t, i > 0, duplicate)
	}
	_, err := handle("2", nil)
	require.NoError(t, err)
	require.EqualValues(t, 3, count.Of(func() {
		duplicate, err := handle("3", nil)
		require.NoError(t, err)
		require.False(t, duplicate)
	}), "begin with the mark, update, commit")
	var balance int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT balance FROM account").Scan(&balance))
	require.Equal(t, 3, balance)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = inbox.Transact(ended, idempotency.Mark{Consumer: "bank", Source: "test", ID: "4"}, func(context.Context, *sql.Tx) error { return nil })
	require.ErrorIs(t, err, context.Canceled)
}

// Other statements that are executed on the way are not held back.
func TestConnectorHoldsBackEventsOnly(t *testing.T) {
	db := openSQL(t, testdb.New(t, outbox.Postgres), nil)
	box := newSQLBox(t, db)
	execSQL(t, db, "CREATE TABLE audit (n int)")
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	via := box.Via(func(ctx context.Context, statement string, args ...any) error {
		result, err := tx.ExecContext(ctx, "INSERT INTO audit VALUES ($1)", int64(7))
		require.NoError(t, err)
		n, err := result.RowsAffected()
		require.NoError(t, err)
		require.EqualValues(t, 1, n)
		_, err = tx.ExecContext(ctx, statement, args...)
		return err
	})
	require.NoError(t, via.Publish("orders", event(t.Context(), "1")))
	require.NoError(t, tx.Commit())
	require.Equal(t, []string{"payload of 1"}, written(t, db))
}

func TestConnectorWithinATracerWithADriverOfItsOwn(t *testing.T) {
	var count roundtrips.Counter
	c, err := pgx.ParseConfig(testdb.New(t, outbox.Postgres).DSN)
	require.NoError(t, err)
	c.DialFunc = count.Dial
	db := sql.OpenDB(foreign{tracing{pgxoutbox.Connector(stdlib.GetConnector(*c))}})
	defer db.Close()
	db.SetMaxOpenConns(1)
	box := newSQLBox(t, db)
	write := func(ids ...string) {
		require.NoError(t, box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			all := make([]*message.Message, len(ids))
			for i, id := range ids {
				all[i] = event(ctx, id)
			}
			return box.In(tx).Publish("orders", all...)
		}))
	}
	write("1")
	require.EqualValues(t, 2, count.Of(func() { write("2") }), "begin, event with commit")
	write("3", "4")
	require.Len(t, written(t, db), 4)
}

// foreign is a connector with a driver of its own.
type foreign struct{ driver.Connector }

func (foreign) Driver() driver.Driver { return struct{ driver.Driver }{stdlib.GetDefaultDriver()} }

func TestConnectorForPoolers(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheDescribe} {
		t.Run(mode.String(), func(t *testing.T) {
			var count roundtrips.Counter
			db := openSQL(t, testdb.New(t, outbox.Postgres), func(c *pgx.ConnConfig) { c.DefaultQueryExecMode, c.DialFunc = mode, count.Dial })
			box := newSQLBox(t, db)
			write := func() {
				require.NoError(t, box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
					return box.In(tx).Publish("orders", event(ctx, "1"))
				}))
			}
			write()
			require.EqualValues(t, 3, count.Of(write), "begin, event, commit")
			require.Len(t, written(t, db), 2)
		})
	}
}

// tracing makes connections that wrap those of another connector.
type tracing struct{ driver.Connector }

func (c tracing) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return traced{inner.(whole)}, nil
}

type traced struct{ whole }

// whole is what database/sql looks for in a connection of pgx.
type whole interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
}

func TestConnectorTakesOnlyThoseOfPgx(t *testing.T) {
	c, err := pgx.ParseConfig(testdb.New(t, outbox.Postgres).DSN)
	require.NoError(t, err)
	wrong := sql.OpenDB(pgxoutbox.Connector(tracing{stdlib.GetConnector(*c)}))
	defer wrong.Close()
	require.ErrorContains(t, wrong.PingContext(t.Context()), "Connector was given a pgxoutbox_test.tracing, which makes connections of type pgxoutbox_test.traced; "+
		"it takes those of github.com/jackc/pgx/v5/stdlib")
	right := sql.OpenDB(tracing{pgxoutbox.Connector(stdlib.GetConnector(*c))})
	defer right.Close()
	require.NoError(t, right.PingContext(t.Context()))
	c.Port = 1
	unreachable := sql.OpenDB(pgxoutbox.Connector(stdlib.GetConnector(*c)))
	defer unreachable.Close()
	require.ErrorContains(t, unreachable.PingContext(t.Context()), "failed to connect")
}

// A transaction leaves the same behind, whichever way its connection was made.
func TestConnectorChangesNothing(t *testing.T) {
	plain := testdb.New(t, outbox.Postgres)
	ours := testdb.New(t, outbox.Postgres)
	dbs := []*sql.DB{plain.DB, openSQL(t, ours, nil)}
	boxes := make([]*outbox.Outbox, len(dbs))
	for i, db := range dbs {
		boxes[i] = newSQLBox(t, db)
		execSQL(t, db, "CREATE TABLE orders (id int PRIMARY KEY)")
	}
	step := rapid.SampledFrom([]string{"publish", "publish", "publish two", "insert", "count", "savepoint", "to savepoint", "release", "fail", "commit"})
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(step, 0, 8).Draw(rt, "steps")
		commit, later := rapid.Bool().Draw(rt, "commit"), rapid.Bool().Draw(rt, "later")
		var outcomes [2]string
		for i, db := range dbs {
			execSQL(t, db, "TRUNCATE orders, millrace_outbox")
			outcomes[i] = runSteps(t, db, boxes[i], steps, commit, later)
		}
		require.Equal(rt, outcomes[0], outcomes[1])
	})
}

// runSteps describes what a transaction leaves behind that goes on after errors.
func runSteps(t *testing.T, db *sql.DB, box *outbox.Outbox, steps []string, commit, later bool) string {
	ctx := t.Context()
	if later { // as the inbox does
		ctx = held.MayBegin(ctx)
	}
	tx, err := db.BeginTx(ctx, nil)
	require.NoError(t, err)
	var failed []bool
	var counts []int
	exec := func(statement string, args ...any) error {
		_, err := tx.ExecContext(t.Context(), statement, args...)
		return err
	}
	for i, step := range steps {
		var err error
		id := fmt.Sprint(step, " ", i)
		switch step {
		case "publish":
			err = box.In(tx).Publish("orders", event(t.Context(), id))
		case "publish two":
			err = box.In(tx).Publish("orders", event(t.Context(), id), event(t.Context(), id+" again"))
		case "insert":
			err = exec("INSERT INTO orders VALUES ($1)", i)
		case "count":
			var n int
			err = tx.QueryRowContext(t.Context(), "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM millrace_outbox)").Scan(&n)
			counts = append(counts, n)
		case "savepoint":
			err = exec("SAVEPOINT here")
		case "to savepoint":
			err = exec("ROLLBACK TO SAVEPOINT here")
		case "release":
			err = exec("RELEASE SAVEPOINT here")
		case "fail":
			err = exec("INSERT INTO orders VALUES ('no number')")
		case "commit":
			err = exec("COMMIT")
		}
		failed = append(failed, err != nil)
	}
	end := tx.Rollback
	if commit {
		end = tx.Commit
	}
	ended := end()
	var orders int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*) FROM orders").Scan(&orders))
	return fmt.Sprintf("failed %v, counts %v, ended %v, %d orders, events %q", failed, counts, ended, orders, written(t, db))
}

// queries are those of all connections that it traces.
type queries struct {
	mu  sync.Mutex
	all []string
}

func (q *queries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all = append(q.all, data.SQL)
	return ctx
}

func (*queries) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// packed reports whether rows were read as a single column, as database/sql needs
// it.
func (q *queries) packed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.all, func(s string) bool { return strings.Contains(s, "int8send(position)") })
}

func TestRelayReadsPastDatabaseSQL(t *testing.T) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeSimpleProtocol} {
		for name, wrap := range map[string]func(driver.Connector) driver.Connector{
			"stdlib":               func(c driver.Connector) driver.Connector { return c },
			"Connector":            pgxoutbox.Connector,
			"a wrapper around one": func(c driver.Connector) driver.Connector { return tracing{pgxoutbox.Connector(c)} },
		} {
			t.Run(name+", "+mode.String(), func(t *testing.T) {
				c, err := pgx.ParseConfig(testdb.New(t, outbox.Postgres).DSN)
				require.NoError(t, err)
				sent := &queries{}
				c.Tracer, c.DefaultQueryExecMode = sent, mode
				db := sql.OpenDB(wrap(stdlib.GetConnector(*c)))
				t.Cleanup(func() { require.NoError(t, db.Close()) })
				box := newSQLBox(t, db)
				execSQL(t, db, "ALTER TABLE millrace_outbox ALTER COLUMN position RESTART WITH 12345678")
				to := make(sink, 10)
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan error, 1)
				go func() { done <- box.Relay(to).Run(ctx) }()
				t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
				write := func(ids ...string) {
					tx, err := db.BeginTx(t.Context(), nil)
					require.NoError(t, err)
					for _, id := range ids {
						require.NoError(t, box.In(tx).Publish("orders", event(t.Context(), id)))
					}
					require.NoError(t, tx.Commit())
					box.Poke()
				}
				write("1")
				to.await(t, "1")
				tx, err := db.BeginTx(t.Context(), nil) // makes a gap: it is rolled back after its statement
				require.NoError(t, err)
				require.NoError(t, box.In(tx).Publish("orders", event(t.Context(), "never")))
				execSQL(t, tx, "SELECT 1")
				require.NoError(t, tx.Rollback())
				write("2")
				to.await(t, "2")
				require.Equal(t, name != "Connector", sent.packed())
			})
		}
	}
}
