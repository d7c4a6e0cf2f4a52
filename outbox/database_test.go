package outbox_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"modernc.org/sqlite"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

// A database that takes no writes for a while stops progress, not the relay: it
// goes on by itself afterwards, and meanwhile repeats nothing.
func TestRelayOutlivesADatabaseThatRefusesWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	admin := open(t, path)
	setup := newBox(t, admin)
	for i := range 100 {
		enqueue(t, setup, "orders", msg(strconv.Itoa(i), "k"))
	}
	relayDB := open(t, path)
	relayDB.SetMaxOpenConns(1)
	box := newBox(t, relayDB)
	to := newSink()
	var readOnly atomic.Bool
	to.setRefuse(func(string, []*message.Message) error {
		if !readOnly.Swap(true) { // from the first event on
			_, err := relayDB.Exec("PRAGMA query_only = 1")
			return err
		}
		return nil
	})
	stop := start(t, box.Relay(to, outbox.Lease(2*time.Second)))
	to.awaitCount(t, 10)
	_, err := relayDB.Exec("PRAGMA query_only = 0")
	require.NoError(t, err)
	to.awaitCount(t, 100)
	eventually(t, "progress is recorded", func() bool { return count(t, admin, "SELECT count(*) FROM millrace_outbox") == 0 })
	require.NoError(t, stop())
	require.Len(t, to.all(), 100)
}

// A full disk refuses the business transaction, and lets the relay make room.
func TestFullDatabaseIsAnErrorToTheWriterAndDrainedByTheRelay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	newBox(t, open(t, path))
	var d sqlite.Driver
	d.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, _ string) error {
		_, err := conn.ExecContext(context.Background(), "PRAGMA max_page_count = 60", nil)
		return err
	})
	db := testdb.DB{DB: sql.OpenDB(connector{&d, "file:" + path + pragmas}), Dialect: outbox.SQLite}
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	box := newBox(t, db)
	written, full := 0, error(nil)
	write := func(id int) error {
		return box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			m := msg(strconv.Itoa(id), "k")
			m.Payload = make([]byte, 3000)
			return box.In(tx).Publish("orders", m)
		})
	}
	for full == nil {
		if full = write(written); full == nil {
			written++
		}
	}
	require.ErrorContains(t, full, "full")
	require.Contains(t, full.Error(), fmt.Sprintf(`outbox: enqueue topic "orders" event %d:`, written))
	to := newSink()
	stop := start(t, box.Relay(to))
	to.awaitCount(t, written)
	eventually(t, "there is room again", func() bool { return write(written) == nil })
	to.awaitCount(t, written+1)
	require.NoError(t, stop())
}

type connector struct {
	d   *sqlite.Driver
	dsn string
}

// 16 million published rows turn every poll into a scan (MassTransit#5918):
// what the relay does again and again must find its rows by an index.
func TestNoQueryOfTheRelayScansWhatIsKept(t *testing.T) {
	db := newDB(t)
	newBox(t, db)
	for _, query := range outbox.RepeatedQueries(db.DB) {
		for _, step := range plan(t, db, query) {
			if strings.HasPrefix(step, "SCAN") && step != "SCAN few" { // which are a thousand at most
				require.Contains(t, step, "USING COVERING INDEX millrace_outbox_scheduled_due", query)
			}
			require.NotContains(t, step, "TEMP B-TREE FOR ORDER BY", query)
		}
	}
}

// plan returns the steps by which SQLite executes a query.
func plan(t *testing.T, db testdb.DB, query string) (steps []string) {
	t.Helper()
	args := make([]any, strings.Count(query, "?"))
	for i := range args {
		args[i] = 1
	}
	rows, err := db.Query("EXPLAIN QUERY PLAN "+query, args...)
	require.NoError(t, err, query)
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
		steps = append(steps, detail)
	}
	require.NoError(t, rows.Err())
	return steps
}

// A held snapshot bloats DELETE-based queues until they time out: here it only
// keeps the WAL from being truncated.
func TestLongReaderElsewhereHoldsUpNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.db")
	db := open(t, path)
	box := newBox(t, db)
	enqueue(t, box, "orders", msg("0", "k"))
	reader, err := open(t, path).BeginTx(t.Context(), &sql.TxOptions{ReadOnly: true})
	require.NoError(t, err)
	defer func() { _ = reader.Rollback() }()
	var n int
	require.NoError(t, reader.QueryRow("SELECT count(*) FROM millrace_outbox").Scan(&n))
	to := newSink()
	stop := start(t, box.Relay(to))
	for i := range 50 {
		enqueue(t, box, "orders", msg(strconv.Itoa(i+1), "k"))
	}
	to.awaitCount(t, 51)
	require.NoError(t, stop())
	require.Zero(t, count(t, db, "SELECT count(*) FROM millrace_outbox"))
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.d.Open(c.dsn) }
func (c connector) Driver() driver.Driver                        { return c.d }
