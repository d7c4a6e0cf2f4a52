package dialect_test

import (
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/testdb"
)

var steps = []dialect.Migration{
	{Version: 1, Statements: []string{"CREATE TABLE IF NOT EXISTS things (x INTEGER)"}},
	{Version: 2, Statements: []string{"ALTER TABLE things ADD COLUMN y INTEGER", "INSERT INTO things (x, y) VALUES (1, 2)"}},
}

func TestMigrateKeepsAHistory(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		require.NoError(t, db.Dialect.Migrate(t.Context(), db.DB, "things", steps[:1]))
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() { errs[i] = db.Dialect.Migrate(t.Context(), db.DB, "things", steps) })
		}
		wg.Wait()
		require.NoError(t, errors.Join(errs...))
		require.NoError(t, db.Dialect.Migrate(t.Context(), db.DB, "others", []dialect.Migration{{Version: 1}}))
		var y, versions int
		require.NoError(t, db.QueryRow("SELECT sum(y) FROM things").Scan(&y), "applied once")
		require.NoError(t, db.QueryRow("SELECT count(*) FROM millrace_migrations WHERE component = 'things'").Scan(&versions))
		require.Equal(t, 2, y)
		require.Equal(t, 2, versions)
		err := db.Dialect.Migrate(t.Context(), db.DB, "things", steps[:1])
		require.ErrorIs(t, err, dialect.ErrNewer)
		require.ErrorContains(t, err, "things is at version 2, this program knows 1: ")
	})
}

func TestMigrateSaysWhatFailed(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		bad := []dialect.Migration{{Version: 1, Statements: []string{"CREATE TABLE IF NOT EXISTS things (x INTEGER)", "NONSENSE"}}}
		require.ErrorContains(t, db.Dialect.Migrate(t.Context(), db.DB, "things", bad), "version 1, statement 2 of 2: ")
		require.NoError(t, db.Dialect.Migrate(t.Context(), db.DB, "things", steps), "what was cut short can be repeated")
	})
}

// The text for other tools leaves the same behind as Migrate, history included.
func TestScriptIsWhatMigrateDoes(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		apply(t, db.DB, db.Dialect.Script("things", steps))
		require.NoError(t, db.Dialect.Migrate(t.Context(), db.DB, "things", steps))
		var y int
		var at int64
		require.NoError(t, db.QueryRow("SELECT sum(y) FROM things").Scan(&y))
		require.Equal(t, 2, y)
		require.NoError(t, db.QueryRow("SELECT min(applied_at) FROM millrace_migrations").Scan(&at))
		require.WithinDuration(t, time.Now(), time.UnixMilli(at), time.Hour)
	})
}

func TestMigrateWaitsForOtherWriters(t *testing.T) {
	db := testdb.New(t, dialect.SQLite)
	tx, err := db.Begin()
	require.NoError(t, err)
	released := time.AfterFunc(50*time.Millisecond, func() { _ = tx.Rollback() })
	defer released.Stop()
	require.NoError(t, dialect.SQLite.Migrate(t.Context(), db.DB, "things", steps))
}

func TestErrorsOfServersAreToldApart(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		_, err := db.Exec("SELECT * FROM nowhere")
		require.True(t, db.Dialect.IsMissingTable(err), "%v", err)
		require.False(t, db.Dialect.IsBusy(err))
		require.False(t, db.Dialect.IsConflict(err))
	})
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		err := deadlock(t, db.DB)
		require.True(t, db.Dialect.IsConflict(err), "%v", err)
		require.True(t, db.Dialect.IsBusy(err))
	})
}

// deadlock returns the error of the transaction that the server gave up.
func deadlock(t *testing.T, db *sql.DB) error {
	_, err := db.Exec("CREATE TABLE pair (x INTEGER PRIMARY KEY, y INTEGER)")
	require.NoError(t, err)
	_, err = db.Exec("INSERT INTO pair VALUES (1, 0), (2, 0)")
	require.NoError(t, err)
	errs := make(chan error, 2)
	var both sync.WaitGroup
	both.Add(2)
	for _, order := range [][2]string{{"1", "2"}, {"2", "1"}} {
		go func() {
			tx, err := db.Begin()
			if err == nil {
				_, err = tx.Exec("UPDATE pair SET y = 1 WHERE x = " + order[0])
			}
			both.Done()
			both.Wait()
			if err == nil {
				_, err = tx.Exec("UPDATE pair SET y = 1 WHERE x = " + order[1])
				_ = tx.Rollback()
			}
			errs <- err
		}()
	}
	return errors.Join(<-errs, <-errs)
}

func apply(t *testing.T, db *sql.DB, script string) {
	t.Helper()
	for _, s := range split(script) {
		_, err := db.Exec(s)
		require.NoError(t, err, s)
	}
}
