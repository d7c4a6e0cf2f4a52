package sqlresilience_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/sqlresilience"
)

var serializable = &sql.TxOptions{Isolation: sql.LevelSerializable}

// deferred returns a pool on a SQLite database whose transactions take no lock at
// first, and don't wait for one.
func deferred(t *testing.T, db testdb.DB) testdb.DB {
	t.Helper()
	if db.Dialect != dialect.SQLite {
		return db
	}
	db.DSN = db.DSN[:len(db.DSN)-len("&_txlock=immediate")] + "&_pragma=busy_timeout(0)"
	db.DB = db.Open(t)
	return db
}

// options are those for transactions that conflict.
func options(d dialect.Dialect) *sql.TxOptions {
	if d == dialect.SQLite {
		return nil // it knows nothing less than serializable
	}
	return serializable
}

// TestTransactRunsConflictingTransactionsAgain has two transactions read what the
// other one changes, which no database lets both do.
func TestTransactRunsConflictingTransactionsAgain(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		accounts(t, db)
		d, pool := db.Dialect, deferred(t, db)
		m := meet(2)
		var calls atomic.Int32
		move := func(from, to int) error {
			return sqlresilience.Transact(t.Context(), pool.DB, retry(), options(d), func(ctx context.Context, tx *sql.Tx) error {
				first := calls.Add(1) <= 2
				a, err := amount(ctx, tx, d, from)
				if err != nil {
					return err
				}
				b, err := amount(ctx, tx, d, to)
				if err != nil {
					return err
				}
				if first {
					m.join()
				}
				if err := set(ctx, tx, d, from, a-10); err != nil {
					return err
				}
				return set(ctx, tx, d, to, b+10)
			})
		}
		var both sync.WaitGroup
		both.Go(func() { requireNil(t, move(1, 2)) })
		both.Go(func() { requireNil(t, move(1, 2)) })
		both.Wait()
		require.GreaterOrEqual(t, calls.Load(), int32(3), "there was a conflict")
		require.Equal(t, []int{80, 120}, balance(t, db))
	})
}

func requireNil(t *testing.T, err error) {
	if err != nil {
		t.Error(err)
	}
}

func balance(t *testing.T, db testdb.DB) []int {
	t.Helper()
	a, err := amount(t.Context(), db, db.Dialect, 1)
	require.NoError(t, err)
	b, err := amount(t.Context(), db, db.Dialect, 2)
	require.NoError(t, err)
	return []int{a, b}
}

func TestTransactRunsDeadlockedTransactionsAgain(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		accounts(t, db)
		m := meet(2)
		var calls atomic.Int32
		move := func(from, to int) error {
			return sqlresilience.Transact(t.Context(), db.DB, retry(), nil, func(ctx context.Context, tx *sql.Tx) error {
				first := calls.Add(1) <= 2
				if err := add(ctx, tx, db.Dialect, from, -10); err != nil {
					return err
				}
				if first {
					m.join()
				}
				return add(ctx, tx, db.Dialect, to, 10)
			})
		}
		var both sync.WaitGroup
		both.Go(func() { requireNil(t, move(1, 2)) })
		both.Go(func() { requireNil(t, move(2, 1)) })
		both.Wait()
		require.EqualValues(t, 3, calls.Load(), "one of two was the victim")
		require.Equal(t, []int{100, 100}, balance(t, db))
	})
}

// TestTransactLosesNoUpdate has several clients read, think and write.
func TestTransactLosesNoUpdate(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		accounts(t, db)
		d, pool, policy := db.Dialect, deferred(t, db), retry()
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for range 5 {
					requireNil(t, sqlresilience.Transact(t.Context(), pool.DB, policy, options(d), func(ctx context.Context, tx *sql.Tx) error {
						n, err := amount(ctx, tx, d, 1)
						if err != nil {
							return err
						}
						return set(ctx, tx, d, 1, n+1)
					}))
				}
			})
		}
		clients.Wait()
		require.Equal(t, []int{120, 100}, balance(t, db))
	})
}

func TestTransactRollsBack(t *testing.T) {
	insufficient := errors.New("insufficient funds")
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		accounts(t, db)
		b := breaker(1)
		policy := pipeline(retry(), b)
		calls := 0
		err := sqlresilience.Transact(t.Context(), db.DB, policy, nil, func(ctx context.Context, tx *sql.Tx) error {
			calls++
			requireNil(t, add(ctx, tx, db.Dialect, 1, 1))
			return insufficient
		})
		require.Equal(t, insufficient, err, "the function's own error comes back as it is")
		require.Equal(t, 1, calls)

		err = sqlresilience.Transact(t.Context(), db.DB, policy, nil, func(ctx context.Context, tx *sql.Tx) error {
			calls++
			requireNil(t, add(ctx, tx, db.Dialect, 1, 1))
			_, err := tx.ExecContext(ctx, "INSERT INTO accounts VALUES (2, 0)")
			return err
		})
		require.True(t, db.Dialect.IsDuplicateKey(err), "%v", err)
		require.Equal(t, resilience.Permanent, resilience.Classify(err))
		require.Equal(t, 2, calls)

		require.PanicsWithValue(t, "a bug", func() {
			_ = sqlresilience.Transact(t.Context(), db.DB, retry(), nil, func(ctx context.Context, tx *sql.Tx) error {
				requireNil(t, add(ctx, tx, db.Dialect, 1, 1))
				panic("a bug")
			})
		})
		require.Zero(t, db.Stats().InUse, "no transaction is left open")
		require.Equal(t, resilience.Closed, b.State(), "neither is a failure of the database")
		require.Equal(t, []int{100, 100}, balance(t, db))
	})
}

func TestTransactOwnErrorAtALaterAttempt(t *testing.T) {
	db := testdb.New(t, dialect.SQLite)
	own := errors.New("own")
	calls := 0
	err := sqlresilience.Transact(t.Context(), db.DB, retry(), nil, func(context.Context, *sql.Tx) error {
		if calls++; calls < 3 {
			return resilience.AsThrottled(errors.New("later"), time.Millisecond)
		}
		return own
	})
	require.Equal(t, own, err)
	require.Equal(t, 3, calls)
}

func TestTransactFunctionThatEndsTheTransaction(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		calls := 0
		err := sqlresilience.Transact(t.Context(), db.DB, retry(), nil, func(_ context.Context, tx *sql.Tx) error {
			calls++
			return tx.Commit()
		})
		require.ErrorIs(t, err, sql.ErrTxDone)
		require.ErrorContains(t, err, "must leave that")
		require.NotErrorIs(t, err, sqlresilience.ErrOutcomeUnknown)
		require.Equal(t, 1, calls)
	})
}

// TestTransactFunctionThatHidesAnError is about PostgreSQL, which answers a COMMIT
// of a transaction that has failed before by rolling it back.
func TestTransactFunctionThatHidesAnError(t *testing.T) {
	db := testdb.New(t, dialect.Postgres)
	accounts(t, db)
	calls := 0
	err := sqlresilience.Transact(t.Context(), db.DB, retry(), nil, func(ctx context.Context, tx *sql.Tx) error {
		calls++
		_, _ = tx.ExecContext(ctx, "INSERT INTO accounts VALUES (2, 0)")
		return nil
	})
	require.ErrorContains(t, err, "rollback")
	require.NotErrorIs(t, err, sqlresilience.ErrOutcomeUnknown)
	require.Equal(t, 1, calls)
}

func TestTransactContextThatEndsBeforeCommit(t *testing.T) {
	reason := errors.New("the user went away")
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		accounts(t, db)
		ctx, cancel := context.WithCancelCause(t.Context())
		err := sqlresilience.Transact(ctx, db.DB, retry(), nil, func(ctx context.Context, tx *sql.Tx) error {
			requireNil(t, add(ctx, tx, db.Dialect, 1, 1))
			cancel(reason)
			return nil
		})
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, reason)
		require.NotErrorIs(t, err, sqlresilience.ErrOutcomeUnknown)
		require.Equal(t, resilience.Cancelled, resilience.Classify(err))
		require.Equal(t, []int{100, 100}, balance(t, db))
	})
}

func TestTransactTimeoutOfAnAttempt(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		accounts(t, db)
		limit := resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: 200 * time.Millisecond}))
		calls := 0
		err := sqlresilience.Transact(t.Context(), db.DB, pipeline(retry(), limit), nil, func(ctx context.Context, tx *sql.Tx) error {
			if calls++; calls == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return add(ctx, tx, db.Dialect, 1, 1)
		})
		require.NoError(t, err)
		require.Equal(t, 2, calls)
		require.Equal(t, []int{101, 100}, balance(t, db))
	})
}

func TestTransactOneAtATime(t *testing.T) {
	db := testdb.New(t, dialect.SQLite)
	accounts(t, db)
	hedged := make(chan struct{})
	hedge := resilience.Must(resilience.NewHedge(resilience.HedgeConfig{
		After: time.Millisecond, Budget: resilience.Unlimited(), Observer: func(resilience.Event) { close(hedged) },
	}))
	calls := 0
	require.NoError(t, sqlresilience.Transact(t.Context(), db.DB, hedge, nil, func(ctx context.Context, tx *sql.Tx) error {
		calls++
		<-hedged
		return add(ctx, tx, db.Dialect, 1, 1)
	}))
	twice := resilience.PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
		err := fn(ctx)
		_ = fn(ctx)
		return err
	})
	require.NoError(t, sqlresilience.Transact(t.Context(), db.DB, twice, nil, func(ctx context.Context, tx *sql.Tx) error {
		calls++
		return add(ctx, tx, db.Dialect, 1, 1)
	}))
	require.Equal(t, 2, calls)
	require.Equal(t, []int{102, 100}, balance(t, db))
}
