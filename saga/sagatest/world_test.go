package sagatest_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/sagatest"
)

// The barrier of a Tx is idempotency.Barrier.
func TestBarrierIsTheOneOfParticipants(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(1)
	real := idempotency.NewBarrier(db, idempotency.SQLite, idempotency.BarrierConfig{})
	require.NoError(t, real.Migrate(t.Context()))
	for n := range 1 << 5 { // sequences of commands: its bits are which
		p := sagatest.NewWorld().Participant("p")
		step := string(rune('a' + n))
		for bit := range 5 {
			var want, got idempotency.Verdict
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			ask, key := (*sagatest.Tx).Forward, idempotency.BarrierKey{Saga: "s/1", Step: step}
			if n>>bit&1 == 0 {
				want, err = real.Forward(t.Context(), tx, key)
			} else {
				ask = (*sagatest.Tx).Compensate
				want, err = real.Compensate(t.Context(), tx, key)
			}
			require.NoError(t, err)
			require.NoError(t, tx.Commit())
			require.NoError(t, p.Do(t.Context(), func(tx *sagatest.Tx) error {
				got = ask(tx, map[string]string{saga.MetadataSaga: "s", saga.MetadataInstance: "1", saga.MetadataStep: step})
				return nil
			}))
			require.Equal(t, want, got, "command %d of %05b", bit, n)
		}
	}
}

func TestTransactionsOfParticipants(t *testing.T) {
	w := sagatest.NewWorld()
	p := w.Participant("p")
	failed := errors.New("failed")
	require.ErrorIs(t, p.Do(t.Context(), func(tx *sagatest.Tx) error {
		tx.Set("n", 1)
		require.Equal(t, 1, sagatest.Get[int](tx, "n"))
		require.NoError(t, Taken.Publish(t.Context(), tx, Answer{"1"}))
		return failed
	}), failed)
	require.Empty(t, p.Keys(), "nothing is written")
	require.Empty(t, sagatest.Sent(w, Taken), "nothing is sent")

	runs := 0
	require.NoError(t, p.Do(t.Context(), func(tx *sagatest.Tx) error {
		if runs++; runs == 1 { // another one commits first
			require.NoError(t, p.Do(t.Context(), func(tx *sagatest.Tx) error { tx.Set("n", 10); return nil }))
		}
		tx.Set("n", sagatest.Get[int](tx, "n")+1)
		return Taken.Publish(t.Context(), tx, Answer{"1"})
	}))
	require.Equal(t, 2, runs)
	require.Equal(t, 11, sagatest.Get[int](p, "n"))
	require.Equal(t, []Answer{{"1"}}, sagatest.Sent(w, Taken))
}

// A handler that fails is tried again, ten times in all.
func TestHandlersThatFail(t *testing.T) {
	for _, tt := range []struct {
		failures int
		err      error
		calls    int
		dead     bool
	}{
		{failures: 3, err: errors.New("busy"), calls: 4},
		{failures: 99, err: errors.New("busy"), calls: 10, dead: true},
		{failures: 99, err: eventbus.Permanent(errors.New("no")), calls: 1, dead: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := sagatest.New(t, gathering(nil))
			calls := 0
			sagatest.HandleOnce(h.Participant("p"), ReserveStock, func(context.Context, *sagatest.Tx, eventbus.Event[Command]) error {
				if calls++; calls <= tt.failures {
					return tt.err
				}
				return nil
			})
			sagatest.When(h, ReserveStock, Command{})
			h.Advance(10e9)
			require.Equal(t, tt.calls, calls)
			if tt.dead {
				require.ErrorIs(t, h.RequireDeadLetter().Err, tt.err)
			}
		})
	}
}
