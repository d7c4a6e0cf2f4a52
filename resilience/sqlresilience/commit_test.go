package sqlresilience_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/faultdb"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/sqlresilience"
)

// TestCommitWithoutAnAnswer cuts the connection when the server has committed and
// its answer is on the way.
func TestCommitWithoutAnAnswer(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		accounts(t, db)
		proxy := proxied(t, db)
		through := open(t, connector(t, db, proxy.Listen))
		calls := 0
		cut := make(chan struct{})
		err := sqlresilience.Transact(t.Context(), through, retry(), nil, func(ctx context.Context, tx *sql.Tx) error {
			calls++
			requireNil(t, add(ctx, tx, db.Dialect, 1, 1))
			swallow(t, proxy)
			go func() {
				defer close(cut)
				for n, err := 0, error(nil); n != 101 && err == nil; {
					n, err = amount(context.Background(), db, db.Dialect, 1)
					requireNil(t, err)
				}
				proxy.Stop()
			}()
			return nil
		})
		<-cut
		unknown(t, err)
		require.Equal(t, 1, calls, "it is not run again")
		require.Equal(t, []int{101, 100}, balance(t, db))
	})
}

// unknown demands the error of a COMMIT without an answer.
func unknown(t *testing.T, err error) {
	t.Helper()
	var u *sqlresilience.OutcomeUnknownError
	require.ErrorAs(t, err, &u)
	require.ErrorIs(t, err, sqlresilience.ErrOutcomeUnknown)
	require.Error(t, u.Err)
	require.ErrorContains(t, u, "may have been committed")
	require.Equal(t, resilience.Permanent, resilience.Classify(err))
	require.Equal(t, resilience.Permanent, sqlresilience.Classify(err))
}

// TestCommitThatRunsIntoTheTimeout is about a server that answers too late.
func TestCommitThatRunsIntoTheTimeout(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		accounts(t, db)
		proxy := proxied(t, db)
		through := open(t, connector(t, db, proxy.Listen))
		limit := resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: 500 * time.Millisecond}))
		calls := 0
		err := sqlresilience.Transact(t.Context(), through, pipeline(retry(), limit), nil, func(ctx context.Context, tx *sql.Tx) error {
			calls++
			requireNil(t, add(ctx, tx, db.Dialect, 1, 1))
			swallow(t, proxy)
			if db.Dialect == dialect.MySQL { // its driver's COMMIT knows no context
				time.AfterFunc(time.Second, proxy.Stop)
			}
			return nil
		})
		unknown(t, err)
		require.Equal(t, 1, calls)
		require.Equal(t, []int{101, 100}, balance(t, db))
	})
}

// TestCommitFaults goes through what may happen at COMMIT, on every database.
func TestCommitFaults(t *testing.T) {
	for _, fault := range []faultdb.Fault{faultdb.FailBefore, faultdb.FailAfter} {
		t.Run(fault.String(), func(t *testing.T) {
			testdb.Each(t, func(t *testing.T, db testdb.DB) {
				accounts(t, db)
				p, err := faultdb.Open(db.DB.Driver(), db.DSN, func(op string) faultdb.Fault {
					if op == "commit" {
						return fault
					}
					return faultdb.None
				})
				require.NoError(t, err)
				defer p.Close()
				calls := 0
				err = sqlresilience.Transact(t.Context(), p.DB(), retry(), nil, func(ctx context.Context, tx *sql.Tx) error {
					calls++
					return add(ctx, tx, db.Dialect, 1, 1)
				})
				unknown(t, err)
				require.ErrorIs(t, err, faultdb.ErrInjected)
				require.Equal(t, 1, calls)
			})
		})
	}
}

// TestCommitThatIsRefused has a constraint that PostgreSQL checks at COMMIT.
func TestCommitThatIsRefused(t *testing.T) {
	db := testdb.New(t, dialect.Postgres)
	exec(t, db.DB, "CREATE TABLE parent (id INTEGER PRIMARY KEY)")
	exec(t, db.DB, "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
	calls := 0
	err := sqlresilience.Transact(t.Context(), db.DB, retry(), nil, func(ctx context.Context, tx *sql.Tx) error {
		calls++
		_, err := tx.ExecContext(ctx, "INSERT INTO child VALUES (1)")
		return err
	})
	require.NotErrorIs(t, err, sqlresilience.ErrOutcomeUnknown)
	require.ErrorContains(t, err, "foreign key")
	require.Equal(t, resilience.Permanent, resilience.Classify(err))
	require.Equal(t, 1, calls)
}

// TestCommitOfAConflict has a conflict that PostgreSQL finds at COMMIT: each of
// two transactions reads what the other one writes, and neither waits.
func TestCommitOfAConflict(t *testing.T) {
	db := testdb.New(t, dialect.Postgres)
	accounts(t, db)
	m := meet(2)
	failed := make(chan error, 10)
	watch := resilience.Must(resilience.NewRetry(resilience.RetryConfig{
		Backoff: resilience.Backoff{Base: time.Millisecond}, Observer: func(e resilience.Event) { failed <- e.Err },
	}))
	skew := func(read, write int) error {
		first := true
		return sqlresilience.Transact(t.Context(), db.DB, watch, serializable, func(ctx context.Context, tx *sql.Tx) error {
			n, err := amount(ctx, tx, db.Dialect, read)
			if err != nil {
				return err
			}
			if err := set(ctx, tx, db.Dialect, write, n+1); err != nil {
				return err
			}
			if first {
				first = false
				m.join()
			}
			return nil
		})
	}
	done := make(chan error)
	go func() { done <- skew(1, 2) }()
	require.NoError(t, skew(2, 1))
	require.NoError(t, <-done)
	require.ErrorContains(t, <-failed, "commit")
	require.ElementsMatch(t, []int{101, 102}, balance(t, db))
}

// TestCommitIsNotRunAgainByAPolicyThatHidesIt has a policy that loses the error.
func TestCommitIsNotRunAgainByAPolicyThatHidesIt(t *testing.T) {
	db := testdb.New(t, dialect.SQLite)
	p, err := faultdb.Open(db.DB.Driver(), db.DSN, func(op string) faultdb.Fault {
		if op == "commit" {
			return faultdb.FailAfter
		}
		return faultdb.None
	})
	require.NoError(t, err)
	defer p.Close()
	hiding := resilience.PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
		if fn(ctx) != nil {
			return errors.New("something went wrong")
		}
		return nil
	})
	few := resilience.Must(resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Backoff{Base: time.Millisecond}}))
	calls := 0
	err = sqlresilience.Transact(t.Context(), p.DB(), pipeline(few, hiding), nil, func(context.Context, *sql.Tx) error {
		calls++
		return nil
	})
	unknown(t, err)
	require.Equal(t, 1, calls)
}
