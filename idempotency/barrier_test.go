package idempotency_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/testdb"
)

func newBarrier(t testing.TB, db testdb.DB, c idempotency.BarrierConfig) *idempotency.Barrier {
	t.Helper()
	b := idempotency.NewBarrier(db.DB, db.Dialect, c)
	require.NoError(t, b.Migrate(t.Context()))
	return b
}

type command func(context.Context, *sql.Tx, idempotency.BarrierKey) (idempotency.Verdict, error)

var errRollBack = errors.New("the participant refuses")

// arrive runs one command in a transaction of its own. effect runs if the verdict
// says so.
func arrive(t testing.TB, db testdb.DB, c command, k idempotency.BarrierKey, effect func(tx *sql.Tx) error) (v idempotency.Verdict) {
	t.Helper()
	err := db.Dialect.Retry(t.Context(), func() error {
		return db.Dialect.Transact(t.Context(), db.DB, func(tx *sql.Tx) error {
			var err error
			if v, err = c(t.Context(), tx, k); err != nil || !v.Run() || effect == nil {
				return err
			}
			return effect(tx)
		})
	})
	if !errors.Is(err, errRollBack) && err != nil {
		t.Error(err)
	}
	return v
}

func TestBarrierTellsWhatArrives(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		b := newBarrier(t, db, idempotency.BarrierConfig{})
		forward, back := command(b.Forward), command(b.Compensate)
		refuse := func(*sql.Tx) error { return errRollBack }
		for name, steps := range map[string][]struct {
			c      command
			effect func(*sql.Tx) error
			want   idempotency.Verdict
		}{
			"in order": {
				{forward, nil, idempotency.Proceed}, {forward, nil, idempotency.Duplicate},
				{back, nil, idempotency.Proceed}, {back, nil, idempotency.Duplicate}, {forward, nil, idempotency.Hanging},
			},
			// Compensation arriving before the action, and an action after its compensation.
			"null compensation and hanging": {
				{back, nil, idempotency.NullCompensation}, {back, nil, idempotency.Duplicate},
				{forward, nil, idempotency.Hanging}, {forward, nil, idempotency.Hanging}, {back, nil, idempotency.Duplicate},
			},
			"what is rolled back has not arrived": {
				{forward, refuse, idempotency.Proceed}, {forward, refuse, idempotency.Proceed},
				{back, nil, idempotency.NullCompensation}, {forward, nil, idempotency.Hanging},
			},
			"a compensation that fails is done again": {
				{forward, nil, idempotency.Proceed}, {back, refuse, idempotency.Proceed}, {back, nil, idempotency.Proceed}, {back, nil, idempotency.Duplicate},
			},
		} {
			k := idempotency.BarrierKey{Saga: "order-7", Step: name}
			for i, s := range steps {
				require.Equal(t, s.want, arrive(t, db, s.c, k, s.effect), "%s, %d", name, i)
			}
		}
	})
}

// The key must be stable and explicit (dtm#559).
func TestBarrierKeysMustBeExplicitAndAreToldApart(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		b := newBarrier(t, db, idempotency.BarrierConfig{})
		long := strings.Repeat("s", 5000)
		for _, k := range []idempotency.BarrierKey{
			{Saga: "s", Step: "a"}, {Saga: "S", Step: "a"}, {Saga: "s", Step: "A"}, {Saga: "sa", Step: "a"}, {Saga: "s", Step: "aa"},
			{Saga: "s ", Step: "a"}, {Saga: "ß", Step: "a"}, {Saga: "ss", Step: "a"}, {Saga: "s\x00\xff", Step: "a"}, {Saga: long, Step: "a"}, {Saga: long + "1", Step: "a"},
		} {
			require.Equal(t, idempotency.Proceed, arrive(t, db, b.Forward, k, nil), k)
		}
		require.NoError(t, db.Dialect.Transact(t.Context(), db.DB, func(tx *sql.Tx) error {
			for _, k := range []idempotency.BarrierKey{{}, {Saga: "s"}, {Step: "a"}} {
				_, err := b.Forward(t.Context(), tx, k)
				require.True(t, eventbus.IsPermanent(err))
				_, err = b.Compensate(t.Context(), tx, k)
				require.True(t, eventbus.IsPermanent(err))
			}
			return nil
		}))
		_, err := b.Forward(t.Context(), nil, idempotency.BarrierKey{Saga: "s", Step: "a"})
		require.ErrorContains(t, err, "the transaction is nil")
	})
}

// Action, compensation and their duplicates at once: the account ends as if
// nothing had happened, or the action has happened and no compensation came.
func TestBarrierUnderConcurrency(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		b := newBarrier(t, db, idempotency.BarrierConfig{})
		_, err := db.Exec("CREATE TABLE moves (step VARCHAR(40) NOT NULL, amount INTEGER NOT NULL)")
		require.NoError(t, err)
		insert := db.Dialect.Rebind("INSERT INTO moves VALUES (?, ?)")
		const steps = 25
		for i := range steps {
			k := idempotency.BarrierKey{Saga: "s", Step: fmt.Sprintf("step-%d", i)}
			move := func(amount int) func(*sql.Tx) error {
				return func(tx *sql.Tx) error { _, err := tx.Exec(insert, k.Step, amount); return err }
			}
			verdicts := make([]idempotency.Verdict, 4)
			var wg sync.WaitGroup
			for n := range verdicts {
				wg.Go(func() {
					if n%2 == 0 {
						verdicts[n] = arrive(t, db, b.Forward, k, move(1))
					} else {
						verdicts[n] = arrive(t, db, b.Compensate, k, move(-1))
					}
				})
			}
			wg.Wait()
			var sum, count int
			require.NoError(t, db.QueryRow(db.Dialect.Rebind("SELECT coalesce(sum(amount), 0), count(*) FROM moves WHERE step = ?"), k.Step).Scan(&sum, &count))
			require.Zero(t, sum, "%v", verdicts)
			require.Contains(t, []int{0, 2}, count, "%v", verdicts)
		}
	})
}

// A model of one step, against any order of commands, duplicates, refusals and
// crashes before the commit.
func TestBarrierAgainstItsModel(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		b := newBarrier(t, db, idempotency.BarrierConfig{})
		n := 0
		rapid.Check(t, func(rt *rapid.T) {
			n++
			var done, undone, blocked [3]bool
			balance := [3]int{}
			for range rapid.IntRange(1, 12).Draw(rt, "commands") {
				i := rapid.IntRange(0, 2).Draw(rt, "step")
				back, crash := rapid.Bool().Draw(rt, "compensate"), rapid.Bool().Draw(rt, "crash")
				c, want := command(b.Forward), idempotency.Proceed
				switch {
				case !back && (undone[i] || blocked[i]):
					want = idempotency.Hanging
				case !back && done[i]:
					want = idempotency.Duplicate
				case back && (undone[i] || blocked[i]):
					want = idempotency.Duplicate
				case back && !done[i]:
					want = idempotency.NullCompensation
				}
				if back {
					c = b.Compensate
				}
				var got idempotency.Verdict
				err := db.Dialect.Transact(t.Context(), db.DB, func(tx *sql.Tx) (err error) {
					got, err = c(t.Context(), tx, idempotency.BarrierKey{Saga: fmt.Sprint(n), Step: fmt.Sprint(i)})
					if err == nil && crash {
						err = errRollBack
					}
					return err
				})
				require.Equal(rt, want, got)
				if crash {
					require.ErrorIs(rt, err, errRollBack)
					continue
				}
				require.NoError(rt, err)
				switch {
				case got.Run() && back:
					undone[i] = true
					balance[i]--
				case got.Run():
					done[i] = true
					balance[i]++
				case got == idempotency.NullCompensation:
					blocked[i] = true
				}
				require.Contains(rt, []int{0, 1}, balance[i])
				if undone[i] || blocked[i] {
					require.Zero(rt, balance[i])
				}
			}
		})
	})
}

func TestBarrierForgetsOldSteps(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		brief := newBarrier(t, db, idempotency.BarrierConfig{Retention: time.Millisecond})
		usual := newBarrier(t, db, idempotency.BarrierConfig{})
		for i := range 5 {
			arrive(t, db, brief.Forward, idempotency.BarrierKey{Saga: "old", Step: fmt.Sprint(i)}, nil)
			arrive(t, db, usual.Forward, idempotency.BarrierKey{Saga: "new", Step: fmt.Sprint(i)}, nil)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		require.Eventually(t, func() bool {
			_, err := usual.Prune(t.Context())
			return err == nil && countRows(t, db, "millrace_barrier") == 5
		}, 30*time.Second, 5*time.Millisecond)
		go func() { done <- usual.Run(ctx) }()
		require.Equal(t, idempotency.Duplicate, arrive(t, db, usual.Forward, idempotency.BarrierKey{Saga: "new", Step: "0"}, nil))
		cancel()
		require.NoError(t, <-done)
	})
}

func TestWrongArgumentsOfBarriersAreReportedByEveryUse(t *testing.T) {
	db := testdb.New(t, dialect.SQLite)
	for _, b := range []*idempotency.Barrier{
		idempotency.NewBarrier(nil, db.Dialect, idempotency.BarrierConfig{}),
		idempotency.NewBarrier(db.DB, idempotency.Dialect{}, idempotency.BarrierConfig{}),
		idempotency.NewBarrier(db.DB, db.Dialect, idempotency.BarrierConfig{Retention: -1}),
		idempotency.NewBarrier(db.DB, db.Dialect, idempotency.BarrierConfig{SQLConfig: idempotency.SQLConfig{Table: "x y"}}),
	} {
		require.ErrorContains(t, b.Migrate(t.Context()), "idempotency: NewBarrier: ")
		require.ErrorContains(t, b.Run(t.Context()), "idempotency: NewBarrier: ")
		_, err := b.Prune(t.Context())
		require.ErrorContains(t, err, "idempotency: NewBarrier: ")
		_, err = b.Forward(t.Context(), nil, idempotency.BarrierKey{})
		require.ErrorContains(t, err, "idempotency: NewBarrier: ")
		require.Empty(t, b.Schema())
	}
	b := idempotency.NewBarrier(db.DB, db.Dialect, idempotency.BarrierConfig{})
	require.NoError(t, db.Dialect.Transact(t.Context(), db.DB, func(tx *sql.Tx) error {
		_, err := b.Forward(t.Context(), tx, idempotency.BarrierKey{Saga: "s", Step: "a"})
		require.ErrorContains(t, err, "call Migrate, or apply Schema")
		return nil
	}))
}
