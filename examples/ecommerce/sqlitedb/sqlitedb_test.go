package sqlitedb

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFileMayHaveAnyName(t *testing.T) {
	for _, name := range []string{"plain.db", "with space.db", "50%.db", "a?mode=memory.db", "b#c.db", "d%20e.db"} {
		file := filepath.Join(t.TempDir(), name)
		db, err := Open(t.Context(), file, `CREATE TABLE IF NOT EXISTS t (n INTEGER); INSERT INTO t VALUES (7)`)
		require.NoError(t, err)
		_, err = os.Stat(file)
		require.NoError(t, err)
		require.NoError(t, Read(t.Context(), file, func(tx *sql.Tx) error {
			var n int
			require.NoError(t, tx.QueryRow(`SELECT n FROM t`).Scan(&n))
			require.Equal(t, 7, n)
			_, err := tx.Exec(`DELETE FROM t`)
			require.ErrorContains(t, err, "readonly")
			return nil
		}))
		require.NoError(t, db.Close())
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "missing", "shop.db")
	_, err := Open(t.Context(), file, `CREATE TABLE t (n INTEGER)`)
	require.ErrorContains(t, err, "sqlitedb: create the schema in "+file)
	err = Read(t.Context(), file, func(tx *sql.Tx) error { return tx.QueryRow(`SELECT 1 FROM t`).Err() })
	require.ErrorContains(t, err, "sqlitedb: read "+file)
}

func TestTimesSortAsText(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	early, late := Time(at), Time(at.Add(time.Microsecond))
	require.Less(t, early, late)
	back, err := ParseTime(early)
	require.NoError(t, err)
	require.True(t, at.Equal(back))
}
