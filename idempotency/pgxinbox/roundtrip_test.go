package pgxinbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
)

var modes = []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol}

func eachMode(t *testing.T, test func(t *testing.T, r rig)) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			test(t, newRig(t, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode, c.MaxConns = mode, 1 }))
		})
	}
}

// The business transaction alone takes three round trips, and so does Once.
func TestRoundTrips(t *testing.T) {
	eachMode(t, func(t *testing.T, r rig) {
		ctx := t.Context()
		once := func(inbox *pgxinbox.Inbox, e eventbus.Event[string]) func() {
			handle := pgxinbox.Once(inbox, effect)
			return func() { require.NoError(t, handle(ctx, e)) }
		}
		other := r.open(t) // another process, which has handled what r.inbox doesn't know
		for _, inbox := range []*pgxinbox.Inbox{r.inbox, other} {
			once(inbox, event(fmt.Sprintf("%p", inbox)))() // to prepare the statements
			once(inbox, event(fmt.Sprintf("%p", inbox)))()
		}
		business := r.turns.Of(func() {
			require.NoError(t, pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error { return effect(ctx, tx, event("e0")) }))
		})
		require.EqualValues(t, 3, business)

		require.EqualValues(t, 3, r.turns.Of(once(r.inbox, event("e1"))), "new: (INSERT, BEGIN), effect, COMMIT")
		require.EqualValues(t, 0, r.turns.Of(once(r.inbox, event("e1"))), "a duplicate that is remembered")

		require.EqualValues(t, 3, r.turns.Of(once(other, event("e2"))))
		require.EqualValues(t, 1, r.turns.Of(once(r.inbox, event("e2"))), "a duplicate out of the blue: its INSERT")

		require.EqualValues(t, 3, r.turns.Of(once(other, event("e4"))))
		require.EqualValues(t, 1, r.turns.Of(once(r.inbox, event("e4"))), "the next of a run: a look")
		require.EqualValues(t, 4, r.turns.Of(once(r.inbox, event("e5"))), "the first new one after a run: a look in vain")
		require.EqualValues(t, 3, r.turns.Of(once(r.inbox, event("e6"))))

		failing := pgxinbox.Once(r.inbox, func(ctx context.Context, tx pgx.Tx, e eventbus.Event[string]) error {
			_ = effect(ctx, tx, e)
			return errors.New("no")
		})
		require.EqualValues(t, 3, r.turns.Of(func() { require.Error(t, failing(ctx, event("e7"))) }))
		require.Equal(t, 1, r.count(t, "effects WHERE id = 'e1'"))
		require.Zero(t, r.count(t, "effects WHERE id = 'e7'"))
	})
}

func TestRoundTripsOfABatch(t *testing.T) {
	eachMode(t, func(t *testing.T, r rig) {
		const n = 100
		run := func(from string) int64 {
			events := make([]eventbus.Event[string], n)
			for i := range events {
				events[i] = event(fmt.Sprintf("%s-%03d", from, i))
			}
			return r.turns.Of(func() { require.NoError(t, pgxinbox.OnceBatch(r.inbox, effect)(t.Context(), events)) })
		}
		run("warm")
		require.EqualValues(t, n+2, run("b"), "(BEGIN, INSERT), n effects, COMMIT")
		require.EqualValues(t, 0, run("b"), "remembered")
		require.Equal(t, 2*n, r.count(t, "millrace_inbox"))
		require.Equal(t, 2*n, r.count(t, "effects"))
	})
}

func TestRoundTripsOfMarkAndSeen(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	for n := range 2 {
		require.NoError(t, pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
			m := mark(fmt.Sprint(n))
			want := []bool{false, true, true}
			took := r.turns.Of(func() {
				seen, err := r.inbox.Seen(ctx, tx, m)
				require.NoError(t, err)
				require.Equal(t, want[0], seen)
				fresh, err := r.inbox.Mark(ctx, tx, m)
				require.NoError(t, err)
				require.Equal(t, want[1], fresh)
				seen, err = r.inbox.Seen(ctx, tx, m)
				require.NoError(t, err)
				require.Equal(t, want[2], seen)
			})
			if n == 1 { // statements are prepared
				require.EqualValues(t, 3, took)
			}
			return nil
		}))
	}
	require.NoError(t, pgx.BeginFunc(ctx, r.pool, func(tx pgx.Tx) error {
		fresh, err := r.inbox.Mark(ctx, tx, mark("0"))
		require.NoError(t, err)
		require.False(t, fresh)
		_, err = tx.Exec(ctx, "SELECT 1")
		require.NoError(t, err, "the caller's transaction goes on")
		return nil
	}))
	_ = idempotency.Mark{}
}
