package outbox_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

// exchange has an outbox publish, with a rollback, something for later, something
// parked and something late among the events.
func exchange(t *testing.T, db testdb.DB, opts ...outbox.Option) {
	t.Helper()
	box := newBox(t, db, opts...)
	to := newSink()
	stop := start(t, box.Relay(to))
	for i := range 10 {
		enqueue(t, box, "orders", msg(strconv.Itoa(2*i), "k"), msg(strconv.Itoa(2*i+1), ""))
		_ = box.Transact(t.Context(), func(_ context.Context, tx *sql.Tx) error {
			require.NoError(t, box.In(tx).Publish("orders", msg("never", "k")))
			return sql.ErrTxDone
		})
	}
	later := msg("20", "k")
	later.Metadata["millrace_due"] = "2001-01-01T00:00:00Z"
	enqueue(t, box, "orders", later)
	to.awaitCount(t, 21)
	require.NoError(t, stop())
	s, err := box.Stats(t.Context())
	require.NoError(t, err)
	require.Zero(t, s.Pending)
	require.Zero(t, s.Parked)
	require.NotContains(t, to.ids(), "never")
}

// Poolers in transaction mode break LISTEN and prepared statements (river#238):
// every statement may meet another connection of the server. Here every one meets
// a new one.
func TestPoolerInTransactionMode(t *testing.T) {
	db := testdb.New(t, outbox.Postgres)
	db.DSN += "&default_query_exec_mode=exec"
	db.DB = db.Open(t)
	db.SetMaxIdleConns(-1)
	exchange(t, db)
}

func TestTablesInASchema(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		schema := "app_" + strings.ToLower(rand.Text()[:10])
		_, err := db.Exec("CREATE SCHEMA " + schema)
		require.NoError(t, err)
		t.Cleanup(func() {
			if db.Dialect == outbox.MySQL { // there a schema is a database
				_, err := db.Exec("DROP DATABASE " + schema)
				require.NoError(t, err)
			}
		})
		exchange(t, db, outbox.Table(schema+".events"))
	})
}

// The relay, its sweeper and the writers share one connection.
func TestPoolOfOneConnection(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		db.SetMaxOpenConns(1)
		exchange(t, db)
	})
}
