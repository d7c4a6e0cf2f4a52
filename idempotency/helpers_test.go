package idempotency_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/testdb"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, // but for what Toxiproxy leaves behind when a proxy is closed
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"))
}

const pragmas = "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"

func open(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+pragmas)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// newDB is an SQLite database that has a business table of effects.
func newDB(t testing.TB) *sql.DB {
	t.Helper()
	db := open(t, filepath.Join(t.TempDir(), "test.db"))
	addEffects(t, db)
	return db
}

func addEffects(t testing.TB, db *sql.DB) {
	t.Helper()
	_, err := db.Exec("CREATE TABLE effects (id VARCHAR(500) NOT NULL)")
	require.NoError(t, err)
}

func newInbox(t testing.TB, db *sql.DB, opts ...idempotency.Option) *idempotency.Inbox {
	t.Helper()
	return migrated(t, testdb.DB{DB: db, Dialect: idempotency.SQLite}, opts...)
}

func migrated(t testing.TB, db testdb.DB, opts ...idempotency.Option) *idempotency.Inbox {
	t.Helper()
	inbox := idempotency.NewInbox(db.DB, db.Dialect, opts...)
	require.NoError(t, inbox.Migrate(t.Context()))
	return inbox
}

// each runs test on every kind of database, with a business table of effects.
func each(t *testing.T, test func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox)) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		addEffects(t, db.DB)
		test(t, db, migrated(t, db))
	})
}

func event(id string) eventbus.Event[string] {
	return eventbus.Event[string]{
		Attributes: eventbus.Attributes{ID: id, Source: "shop"},
		Delivery:   eventbus.Delivery{Topic: "orders", Group: "billing", Attempt: 1},
		Data:       id,
	}
}

func mark(id string) idempotency.Mark {
	return idempotency.Mark{Consumer: "billing", Source: "shop", ID: id}
}

// effect is a handler that writes the event's data.
func effect(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
	return write(ctx, tx, e.Data)
}

func write(ctx context.Context, tx *sql.Tx, text string) error {
	_, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO effects VALUES ('%s')", strings.ReplaceAll(text, "'", "''")))
	return err
}

func effects(t testing.TB, db *sql.DB) int { return count(t, db, "effects") }

func marks(t testing.TB, db *sql.DB) int { return count(t, db, "millrace_inbox") }

func count(t testing.TB, db *sql.DB, table string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(&n))
	return n
}

// fillMarks writes marks of the given age.
func fillMarks(t testing.TB, db testdb.DB, n int, age time.Duration) {
	t.Helper()
	sequence := "WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < %d) SELECT 'billing', 'shop', concat('%s-', i), %d - %d + i FROM c"
	into := "INSERT INTO millrace_inbox "
	if db.Dialect == idempotency.MySQL {
		conn, err := db.Conn(context.Background())
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.ExecContext(context.Background(), "SET SESSION max_recursive_iterations = 10000000")
		require.NoError(t, err)
		_, err = conn.ExecContext(context.Background(), into+fmt.Sprintf(sequence, n, age, time.Now().Add(-age).UnixMilli(), n))
		require.NoError(t, err)
		return
	}
	if db.Dialect == idempotency.SQLite {
		sequence = strings.Replace(sequence, "concat('%s-', i)", "'%s-' || i", 1)
	}
	_, err := db.Exec(into + fmt.Sprintf(sequence, n, age, time.Now().Add(-age).UnixMilli(), n))
	require.NoError(t, err)
}

const (
	waitLimit = 30 * time.Second
	waitTick  = 5 * time.Millisecond
)
