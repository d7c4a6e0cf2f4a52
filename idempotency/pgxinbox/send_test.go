package pgxinbox_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
)

func TestSendIsOneRoundTripAndOneTransaction(t *testing.T) {
	eachMode(t, func(t *testing.T, r rig) {
		ctx := t.Context()
		batch := func(statements ...string) *pgx.Batch {
			var b pgx.Batch
			for _, s := range statements {
				b.Queue(s)
			}
			return &b
		}
		insert := "INSERT INTO effects VALUES ('x')"
		_, err := r.inbox.Send(ctx, mark("warm"), batch(insert))
		require.NoError(t, err)

		var called int
		b := batch(insert, insert)
		b.QueuedQueries[1].Exec(func(pgconn.CommandTag) error { called++; return nil })
		require.EqualValues(t, 1, r.turns.Of(func() {
			duplicate, err := r.inbox.Send(ctx, mark("e1"), b)
			require.NoError(t, err)
			require.False(t, duplicate)
		}))
		require.Equal(t, 1, called)
		b = batch(insert)
		b.QueuedQueries[0].Exec(func(pgconn.CommandTag) error { called++; return nil })
		require.EqualValues(t, 1, r.turns.Of(func() {
			duplicate, err := r.open(t).Send(ctx, mark("e1"), b) // as another process
			require.NoError(t, err)
			require.True(t, duplicate)
		}))
		require.Equal(t, 1, called)
		require.Equal(t, 3, r.count(t, "effects"))

		_, err = r.pool.Exec(ctx, "CREATE TABLE single (id int PRIMARY KEY)")
		require.NoError(t, err)
		for _, bad := range []*pgx.Batch{
			batch(insert, "INSERT INTO nowhere VALUES (1)"),
			batch("INSERT INTO single VALUES (1)", "INSERT INTO single VALUES (1)"), // no duplicate of the event
			batch("begin", insert),
		} {
			duplicate, err := r.inbox.Send(ctx, mark("e2"), bad)
			require.ErrorContains(t, err, `pgxinbox: event e2 of source "shop"`)
			require.False(t, duplicate)
			require.Equal(t, 3, r.count(t, "effects"))
			require.Zero(t, r.count(t, "millrace_inbox WHERE id = 'e2'"))
		}
		duplicate, err := r.inbox.Send(ctx, mark("e2"), batch(insert))
		require.NoError(t, err)
		require.False(t, duplicate)
		_, err = r.inbox.Send(ctx, idempotency.Mark{}, batch())
		require.ErrorContains(t, err, "the consumer is empty")
	})
}
