package idempotency_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/testdb"
)

// Unbounded DELETE; a cleaner never implemented (Rebus.SqlServer#108).
func TestUnboundedDELETE(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		fillMarks(t, db, 2500, 31*24*time.Hour)
		fillMarks(t, db, 40, 29*24*time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		n, err := inbox.Prune(ctx)
		require.Error(t, err)
		require.Zero(t, n)
		n, err = inbox.Prune(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2500, n)
		require.Equal(t, 40, marks(t, db.DB))
		n, err = inbox.Prune(t.Context())
		require.NoError(t, err)
		require.Zero(t, n)
		stats, err := inbox.Stats(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 2500, stats.Pruned)
		require.WithinDuration(t, time.Now().Add(-29*24*time.Hour), stats.Oldest, time.Minute)
	})
}

// 16 million rows turn every poll into a scan (MassTransit#5918): a step reads
// by the index, whatever is kept.
func TestPruneReadsNoMoreThanItDeletes(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		fillMarks(t, db, 20_000, time.Hour)
		fillMarks(t, db, 100, 31*24*time.Hour)
		switch db.Dialect {
		case idempotency.Postgres:
			_, err := db.Exec("ANALYZE millrace_inbox")
			require.NoError(t, err)
			require.Less(t, pruneBuffers(t, db.DB, inbox, 0), 500, "blocks of 100 rows, their keys in two indexes, and little else")
		case idempotency.MySQL:
			_, err := db.Exec("ANALYZE TABLE millrace_inbox")
			require.NoError(t, err)
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			defer conn.Close()
			before := rowsRead(t, conn)
			_, err = conn.ExecContext(t.Context(), inbox.PruneStatement(), 0, time.Now().Add(-30*24*time.Hour).UnixMilli(), 1000)
			require.NoError(t, err)
			require.Less(t, rowsRead(t, conn)-before, 500)
		default:
			rows, err := db.Query("EXPLAIN QUERY PLAN "+inbox.PruneStatement(), 1, 2, 3)
			require.NoError(t, err)
			defer rows.Close()
			for rows.Next() {
				var id, parent, unused int
				var detail string
				require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
				require.NotContains(t, detail, "SCAN")
			}
			require.NoError(t, rows.Err())
		}
	})
}

// rowsRead counts the rows that a session of MySQL has read.
func rowsRead(t *testing.T, conn *sql.Conn) (n int) {
	t.Helper()
	rows, err := conn.QueryContext(t.Context(), "SHOW SESSION STATUS LIKE 'Handler_read%'")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var name string
		var value int
		require.NoError(t, rows.Scan(&name, &value))
		n += value
	}
	require.NoError(t, rows.Err())
	return n
}

// pruneBuffers returns how many blocks a step of PostgreSQL touches, and undoes it.
func pruneBuffers(t *testing.T, db *sql.DB, inbox *idempotency.Inbox, from int64) int {
	t.Helper()
	tx, err := db.Begin()
	require.NoError(t, err)
	defer tx.Rollback()
	var text string
	before := time.Now().Add(-30 * 24 * time.Hour).UnixMilli()
	require.NoError(t, tx.QueryRow("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+inbox.PruneStatement(), from, before, 1000).Scan(&text))
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(text), &plans))
	return plans[0].Plan.Hit + plans[0].Plan.Read
}

// A held xmin (long report, replica) bloats DELETE-based queues until they time
// out: dead rows can't be removed, and must not be read again by every step.
func TestAHeldXminDoesNotSlowThePruningDown(t *testing.T) {
	db := testdb.New(t, idempotency.Postgres)
	inbox := migrated(t, db)
	fillMarks(t, db, 29_500, 32*24*time.Hour)
	fillMarks(t, db, 500, 31*24*time.Hour)
	report, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	require.NoError(t, err)
	defer report.Rollback()
	require.NoError(t, report.QueryRow("SELECT 1 FROM millrace_inbox LIMIT 1").Scan(new(int)))
	n, err := inbox.Prune(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 30_000, n)
	_, err = db.Exec("VACUUM millrace_inbox")
	require.NoError(t, err)
	fillMarks(t, db, 1000, 30*24*time.Hour+time.Minute)
	fromHere, fromTheStart := pruneBuffers(t, db.DB, inbox, inbox.PruneFrom()), pruneBuffers(t, db.DB, inbox, 0)
	t.Log("blocks of a step:", fromHere, "and from the start:", fromTheStart)
	require.Greater(t, fromTheStart-fromHere, 250, "the blocks of 30,000 dead rows are not read again")
}

// Cleanup deadlocks at 80 million rows (NServiceBus.Persistence.Sql#778).
func TestCleanupDeadlocks(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, _ *idempotency.Inbox) {
		const old, each = 4000, 150
		fillMarks(t, db, old, 31*24*time.Hour)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var pruned int64
		for range 3 { // as other processes would
			inbox := idempotency.NewInbox(db.DB, db.Dialect)
			wg.Go(func() {
				n, err := inbox.Prune(t.Context())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				pruned += n
				mu.Unlock()
			})
		}
		for w := range 4 {
			inbox := idempotency.NewInbox(db.DB, db.Dialect)
			wg.Go(func() {
				for i := range each {
					// half of them were handled so long ago that they are new again, if they are pruned first
					m := mark(fmt.Sprintf("%d-%d", w, i))
					if i%2 == 0 {
						m = mark(fmt.Sprintf("%s-%d", 31*24*time.Hour, w*each+i+1))
					}
					if _, err := inbox.Transact(t.Context(), m, func(ctx context.Context, tx *sql.Tx) error { return write(ctx, tx, m.ID) }); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		inbox := idempotency.NewInbox(db.DB, db.Dialect)
		rest, err := inbox.Prune(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, old, pruned+rest, "each is deleted once")
		require.Equal(t, effects(t, db.DB), marks(t, db.DB), "only what was handled now is left")
	})
}

// Inbox marks kept for less time than a dead letter may wait before it is sent
// back. Nobody knows how long that is, so the default is long, and what the
// documents say it is.
func TestInboxMarksKeptForLessTimeThanADeadLetterMayWait(t *testing.T) {
	require.Equal(t, 30*24*time.Hour, idempotency.DefaultRetention)
	text, err := os.ReadFile("../docs/idempotency.md")
	require.NoError(t, err)
	require.Contains(t, strings.Join(strings.Fields(string(text)), " "), "Marks are kept for 30 days")
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		fillMarks(t, db, 1, idempotency.DefaultRetention-time.Minute)
		n, err := inbox.Prune(t.Context())
		require.NoError(t, err)
		require.Zero(t, n, "a letter that has waited for almost as long is still known")
	})
}

func TestRunPrunesUntilItsContextEnds(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, _ *idempotency.Inbox) {
		inbox := idempotency.NewInbox(db.DB, db.Dialect, idempotency.Retention(time.Hour))
		fillMarks(t, db, 1500, 2*time.Hour)
		fillMarks(t, db, 1, time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- inbox.Run(ctx) }()
		require.Eventually(t, func() bool { return marks(t, db.DB) == 1 }, waitLimit, waitTick)
		cancel()
		require.NoError(t, <-done)
	})
}
