package faultdb_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/internal/faultdb"
	"github.com/millrace-go/millrace/internal/testdb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// at decides about one operation, the nth of those that begin with op.
func at(op string, n int, fault faultdb.Fault) func(string) faultdb.Fault {
	return func(name string) faultdb.Fault {
		if !strings.HasPrefix(name, op) {
			return faultdb.None
		}
		n--
		if n == 0 {
			return fault
		}
		return faultdb.None
	}
}

func open(t *testing.T, db testdb.DB, decide func(string) faultdb.Fault) *faultdb.Process {
	t.Helper()
	p, err := faultdb.Open(db.DB.Driver(), db.DSN, decide)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

// insert adds a row in a transaction.
func insert(db *sql.DB, n int) error {
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", n)); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

func TestFaultsTakeEffectOrNot(t *testing.T) {
	tests := []struct {
		op    string
		fault faultdb.Fault
		there bool
	}{
		{"begin", faultdb.FailBefore, false},
		{"begin", faultdb.FailAfter, false},
		{"exec", faultdb.FailBefore, false},
		{"exec", faultdb.FailAfter, false},
		{"commit", faultdb.FailBefore, false},
		{"commit", faultdb.FailAfter, true},
		{"begin", faultdb.KillBefore, false},
		{"exec", faultdb.KillAfter, false},
		{"commit", faultdb.KillBefore, false},
		{"commit", faultdb.KillAfter, true},
	}
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		_, err := db.Exec("CREATE TABLE t (n INTEGER)")
		require.NoError(t, err)
		for i, test := range tests {
			t.Run(test.op+" "+test.fault.String(), func(t *testing.T) {
				p := open(t, db, at(test.op, 1, test.fault))
				killed := test.fault >= faultdb.KillBefore
				want := faultdb.ErrInjected
				if killed {
					want = faultdb.ErrKilled
				}
				require.ErrorIs(t, insert(p.DB(), i), want)
				if again := insert(p.DB(), -1); killed {
					require.ErrorIs(t, again, faultdb.ErrKilled)
					require.ErrorIs(t, p.Do("call", func() error { panic("not called") }), faultdb.ErrKilled)
				} else {
					require.NoError(t, again, "the process goes on, and nothing is left open")
				}
				require.NoError(t, p.Close())
				require.NoError(t, insert(db.DB, -2), "nothing is locked")
				var n int
				require.NoError(t, db.QueryRow(fmt.Sprintf("SELECT count(*) FROM t WHERE n = %d", i)).Scan(&n))
				require.Equal(t, test.there, n == 1)
			})
		}
	})
}

// A killed process holds no lock, even in the middle of reading.
func TestKillWhileRowsAreRead(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		_, err := db.Exec("CREATE TABLE t (n INTEGER)")
		require.NoError(t, err)
		p := open(t, db, nil)
		require.NoError(t, insert(p.DB(), 1))
		require.NoError(t, insert(p.DB(), 2))
		tx, err := p.DB().Begin()
		require.NoError(t, err)
		_, err = tx.Exec("DELETE FROM t WHERE n = 1")
		require.NoError(t, err)
		rows, err := tx.Query("SELECT n FROM t")
		require.NoError(t, err)
		require.True(t, rows.Next())
		p.Kill()
		require.False(t, rows.Next())
		require.ErrorIs(t, rows.Err(), faultdb.ErrKilled)
		require.NoError(t, p.Close())
		require.ErrorIs(t, tx.Commit(), faultdb.ErrKilled)
		_, err = db.Exec("DELETE FROM t WHERE n = 1")
		require.NoError(t, err)
	})
}

// What a driver does beyond the standard types works through the wrapper.
func TestPassesOnWhatTheDriverCan(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		p := open(t, db, nil)
		require.Equal(t, fmt.Sprintf("%T", db.DB.Driver()), fmt.Sprintf("%T", p.DB().Driver()))
		require.NoError(t, p.DB().Ping())
		s, err := p.DB().Prepare("SELECT 1")
		require.NoError(t, err)
		defer s.Close()
		rows, err := s.Query()
		require.NoError(t, err)
		defer rows.Close()
		types, err := rows.ColumnTypes()
		require.NoError(t, err)
		require.Len(t, types, 1)
		require.True(t, rows.Next())
		require.False(t, rows.Next())
		require.NoError(t, rows.Err())
		if db.Driver == "pgx" { // takes slices as arrays
			var n int
			require.NoError(t, p.DB().QueryRow("SELECT cardinality($1::bigint[])", []int64{1, 2, 3}).Scan(&n))
			require.Equal(t, 3, n)
		}
		if db.Driver != "sqlite" { // which ignores them
			_, err = p.DB().BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelLinearizable})
			require.Error(t, err, "options reach the driver")
		}
	})
}
