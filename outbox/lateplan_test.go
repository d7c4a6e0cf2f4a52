package outbox

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testdb"
)

// PostgreSQL compiles a statement whose estimated cost is high, which takes a
// second or two; the read of the log is too frequent for that, however many gaps
// there are.
func TestReadOfLateRowsIsNotCompiledByPostgres(t *testing.T) {
	db := testdb.New(t, Postgres)
	box := New(db.DB, Postgres)
	require.NoError(t, box.Migrate(t.Context()))
	_, err := db.Exec(`INSERT INTO millrace_outbox (position, created_at, id, topic, key, metadata, payload)
		SELECT 5 * n, 0, '', 't', '', '', '' FROM generate_series(1, 100000) AS n`)
	require.NoError(t, err)
	var missing gaps
	for n := range int64(700) {
		missing.add(span{from: 5*n + 1, to: 5*n + 4})
	}
	g := newPostgresGaps(&term{Relay: &Relay{box: box}})
	q := g.query(499_000, missing, readBatch)
	rows, err := db.Query("EXPLAIN (ANALYZE) "+q.text, q.args...)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		require.NotContains(t, line, "JIT")
	}
	require.NoError(t, rows.Err())
}
