package dialect_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	_ "modernc.org/sqlite"

	"github.com/millrace-go/millrace/internal/dialect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "test.db")+"?_txlock=immediate&_pragma=journal_mode(WAL)")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func TestPrefix(t *testing.T) {
	for _, ok := range []string{"a", "_", "millrace_outbox", "A9", "app.outbox", strings.Repeat("x", 40)} {
		require.NoError(t, dialect.CheckPrefix(ok))
	}
	for _, bad := range []string{"", "9a", "a b", `a"`, "é", ".a", "a.", "a.b.c", "a b.c", strings.Repeat("x", 41)} {
		require.ErrorContains(t, dialect.CheckPrefix(bad), fmt.Sprintf("table prefix %q: use 1 to 40 letters", bad))
	}
}

func TestErrorsAreToldApart(t *testing.T) {
	db := open(t)
	_, err := db.Exec("SELECT * FROM nowhere")
	require.True(t, dialect.SQLite.IsMissingTable(err))
	require.False(t, dialect.SQLite.IsBusy(err))
	tx, err := db.Begin()
	require.NoError(t, err)
	_, err = db.Exec("CREATE TABLE t (x)")
	require.True(t, dialect.SQLite.IsBusy(err), "%v", err)
	require.NoError(t, tx.Rollback())
	require.False(t, dialect.SQLite.IsBusy(nil))
	require.False(t, dialect.SQLite.IsMissingTable(nil))
}

func TestTurnsAreFirstComeFirstServed(t *testing.T) {
	db := open(t)
	mine, err := dialect.SQLite.Turn(t.Context(), db)
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("changed my mind"))
	_, err = dialect.SQLite.Turn(ctx, db)
	require.EqualError(t, err, "changed my mind")
	got := make(chan struct{})
	go func() {
		theirs, err := dialect.SQLite.Turn(t.Context(), db)
		if err == nil {
			theirs()
		}
		close(got)
	}()
	other, err := dialect.SQLite.Turn(t.Context(), open(t))
	require.NoError(t, err, "every database has turns of its own")
	other()
	mine()
	<-got
}

// A transaction within another waits for itself. It must end up with the
// database's own answer and not wait for ever.
func TestTransactionWithinAnotherIsAnErrorInTheEnd(t *testing.T) {
	db := open(t)
	err := dialect.SQLite.Transact(t.Context(), db, func(*sql.Tx) error {
		return dialect.SQLite.Transact(t.Context(), db, func(*sql.Tx) error { return nil })
	})
	require.True(t, dialect.SQLite.IsBusy(err), "%v", err)
	require.ErrorContains(t, err, "begin the transaction: ")
}

func split(script string) []string {
	return strings.Split(strings.TrimSuffix(script, ";\n"), ";\n\n")
}

func TestRebind(t *testing.T) {
	require.Equal(t, "a = $1 AND b = $2", dialect.Postgres.Rebind("a = ? AND b = ?"))
	require.Equal(t, "a = ?", dialect.MySQL.Rebind("a = ?"))
}
