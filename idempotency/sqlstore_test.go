package idempotency_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/testdb"
)

const (
	leaseVictimEnv = "MILLRACE_LEASE_TEST_VICTIM" // driver, a space, DSN
	leaseDialect   = "MILLRACE_LEASE_TEST_DIALECT"
	victimLease    = 2 * time.Second
)

// TestLeaseVictim is the process that TestKilledHolderIsOvertaken kills: it
// claims a key, says with which token, and holds it.
func TestLeaseVictim(t *testing.T) {
	driver, dsn, found := strings.Cut(os.Getenv(leaseVictimEnv), " ")
	if !found {
		t.Skip("this is a process of another test")
	}
	db, err := sql.Open(driver, dsn)
	require.NoError(t, err)
	var d idempotency.Dialect
	for _, d = range testdb.Dialects {
		if d.String() == os.Getenv(leaseDialect) {
			break
		}
	}
	g := newGuard(idempotency.NewSQLStore(db, d, idempotency.SQLConfig{}), idempotency.Policy{Lease: victimLease})
	_, _, err = idempotency.Do(t.Context(), g, orderKey, func(ctx context.Context, c idempotency.Claim) (string, error) {
		fmt.Printf("token %d\n", c.Token)
		<-ctx.Done()
		return "", ctx.Err()
	})
	require.NoError(t, err)
}

// A holder that is killed in the middle is overtaken when its lease ends, with a
// higher token, and what it may have left on the way can't complete.
func TestKilledHolderIsOvertaken(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		t.Parallel() // it is waiting, mostly
		store := newSQLStore(t, db)
		victim := exec.Command(os.Args[0], "-test.run", "^TestLeaseVictim$")
		victim.Env = append(os.Environ(), leaseVictimEnv+"="+db.Driver+" "+db.DSN, leaseDialect+"="+db.Dialect.String())
		out, err := victim.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, victim.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		token, err := strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(line, "token ")), 10, 64)
		require.NoError(t, err)

		g := newGuard(store, idempotency.Policy{Lease: victimLease, Wait: 10 * victimLease})
		// It lives, so its lease does not end: more than one lease long.
		_, _, err = idempotency.Do(t.Context(), g, orderKey, must(t), idempotency.WaitAtMost(victimLease*3/2))
		require.ErrorIs(t, err, idempotency.ErrInProgress)
		require.NoError(t, victim.Process.Kill())
		require.ErrorContains(t, victim.Wait(), "signal: killed")

		v, replayed, err := idempotency.Do(t.Context(), g, orderKey, func(ctx context.Context, c idempotency.Claim) (string, error) {
			require.Greater(t, c.Token, token)
			require.Equal(t, 2, c.Attempt, "it may have taken effect")
			ghost := idempotency.Claim{Key: orderKey, Token: token, Attempt: 1}
			require.ErrorIs(t, store.Complete(ctx, ghost, []byte("late"), time.Hour), idempotency.ErrLost)
			require.ErrorIs(t, store.Renew(ctx, ghost, time.Hour), idempotency.ErrLost)
			require.ErrorIs(t, store.Release(ctx, ghost), idempotency.ErrLost)
			return "second", nil
		})
		require.NoError(t, err)
		require.False(t, replayed)
		require.Equal(t, "second", v)
	})
}

func TestSQLStorePrunesInSteps(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		store := newSQLStore(t, db)
		const old, kept = 1700, 30
		fillLeases(t, db, "old", old, time.Now().Add(-time.Hour))
		fillLeases(t, db, "kept", kept, time.Now().Add(time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- store.Run(ctx) }()
		require.Eventually(t, func() bool { return countRows(t, db, "millrace_leases") == kept }, 30*time.Second, 5*time.Millisecond)
		cancel()
		require.NoError(t, <-done)
		n, err := store.Prune(t.Context())
		require.NoError(t, err)
		require.Zero(t, n)
	})
}

func fillLeases(t testing.TB, db testdb.DB, name string, n int, expires time.Time) {
	t.Helper()
	insert := db.Dialect.Rebind(`INSERT INTO millrace_leases (key_hash, name, phase, token, attempt, lease_until, expires_at, claimed_at) VALUES (?, ?, 3, 1, 1, 0, ?, 0)`)
	require.NoError(t, db.Dialect.Transact(t.Context(), db.DB, func(tx *sql.Tx) error {
		for i := range n {
			hash := idempotency.Key{Scope: name, ID: strconv.Itoa(i)}.Hash()
			if _, err := tx.Exec(insert, hash[:], []byte(name), expires.UnixMicro()+int64(i/7)); err != nil {
				return err
			}
		}
		return nil
	}))
}

func countRows(t testing.TB, db testdb.DB, table string) (n int) {
	t.Helper()
	require.NoError(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(&n))
	return n
}

// Cost must not grow with what is kept.
func TestOldLeasesAreFoundByAnIndex(t *testing.T) {
	db := testdb.New(t, dialect.SQLite)
	newSQLStore(t, db)
	rows, err := db.Query("EXPLAIN QUERY PLAN "+idempotency.OldLeases(db.DB), 0, 1)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
		require.NotContains(t, detail, "SCAN")
		require.NotContains(t, detail, "TEMP B-TREE")
	}
	require.NoError(t, rows.Err())
}

func TestSQLStoreInASchema(t *testing.T) {
	for d, schema := range map[dialect.Dialect]string{dialect.SQLite: "main", dialect.Postgres: "shop", dialect.MySQL: ""} {
		t.Run(d.String(), func(t *testing.T) {
			db := testdb.New(t, d)
			switch d {
			case dialect.Postgres:
				_, err := db.Exec("CREATE SCHEMA shop")
				require.NoError(t, err)
			case dialect.MySQL:
				require.NoError(t, db.QueryRow("SELECT database()").Scan(&schema))
			}
			store := idempotency.NewSQLStore(db.DB, d, idempotency.SQLConfig{Table: schema + ".leases"})
			require.NoError(t, store.Migrate(t.Context()))
			require.NoError(t, store.Migrate(t.Context()))
			v, _, err := idempotency.Do(t.Context(), newGuard(store, idempotency.Policy{}), orderKey, answer("ok"))
			require.NoError(t, err)
			require.Equal(t, "ok", v)
			require.Equal(t, 1, countRows(t, db, schema+".leases"))

			barrier := newBarrier(t, db, idempotency.BarrierConfig{SQLConfig: idempotency.SQLConfig{Table: schema + ".barrier"}})
			for _, want := range []idempotency.Verdict{idempotency.Proceed, idempotency.Duplicate} {
				require.Equal(t, want, arrive(t, db, barrier.Forward, idempotency.BarrierKey{Saga: "s", Step: "a"}, nil))
			}
			_, err = barrier.Prune(t.Context())
			require.NoError(t, err)
		})
	}
}

func TestSQLStoreSchemaMayBeAppliedByHand(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		store := idempotency.NewSQLStore(db.DB, db.Dialect, idempotency.SQLConfig{})
		for range 2 {
			for statement := range strings.SplitSeq(strings.TrimSuffix(store.Schema(), ";\n"), ";\n\n") {
				_, err := db.Exec(statement)
				require.NoError(t, err, statement)
			}
		}
		require.NoError(t, store.Migrate(t.Context()))
		_, _, err := idempotency.Do(t.Context(), newGuard(store, idempotency.Policy{}), orderKey, answer("ok"))
		require.NoError(t, err)
	})
}

func TestSQLStoreWithoutItsTableSaysWhatToDo(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		store := idempotency.NewSQLStore(db.DB, db.Dialect, idempotency.SQLConfig{})
		_, _, err := idempotency.Do(t.Context(), newGuard(store, idempotency.Policy{}), orderKey, must(t))
		require.ErrorContains(t, err, "call Migrate, or apply Schema")
		require.ErrorContains(t, store.Complete(t.Context(), idempotency.Claim{Key: orderKey, Token: 1}, nil, time.Hour), "call Migrate")
	})
}

func TestWrongArgumentsOfSQLStoresAreReportedByEveryUse(t *testing.T) {
	db := testdb.New(t, dialect.SQLite)
	for _, s := range []*idempotency.SQLStore{
		idempotency.NewSQLStore(nil, db.Dialect, idempotency.SQLConfig{}),
		idempotency.NewSQLStore(db.DB, idempotency.Dialect{}, idempotency.SQLConfig{}),
		idempotency.NewSQLStore(db.DB, db.Dialect, idempotency.SQLConfig{Table: "1; DROP"}),
	} {
		require.ErrorContains(t, s.Migrate(t.Context()), "idempotency: NewSQLStore: ")
		require.ErrorContains(t, s.Run(t.Context()), "idempotency: NewSQLStore: ")
		_, err := s.Prune(t.Context())
		require.ErrorContains(t, err, "idempotency: NewSQLStore: ")
		_, err = s.Claim(t.Context(), idempotency.ClaimRequest{})
		require.ErrorContains(t, err, "idempotency: NewSQLStore: ")
		require.ErrorContains(t, s.Renew(t.Context(), idempotency.Claim{}, 0), "idempotency: NewSQLStore: ")
		require.Empty(t, s.Schema())
	}
}

// MySQL's drivers count changed rows, or with clientFoundRows found ones.
func TestSQLStoreWithFoundRowsOfMySQL(t *testing.T) {
	db := testdb.New(t, dialect.MySQL)
	newSQLStore(t, db)
	pool, err := sql.Open(db.Driver, db.DSN+"?clientFoundRows=true")
	require.NoError(t, err)
	defer pool.Close()
	g := newGuard(idempotency.NewSQLStore(pool, db.Dialect, idempotency.SQLConfig{}), idempotency.Policy{})
	for i := range 3 {
		_, replayed, err := idempotency.Do(t.Context(), g, orderKey, answer("ok"))
		require.NoError(t, err)
		require.Equal(t, i > 0, replayed)
	}
}
