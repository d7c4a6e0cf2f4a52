package pgxinbox_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
)

func TestInBatchMarksAllOrNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, r rig) {
		ctx := t.Context()
		send := func(i *pgxinbox.Inbox, ids ...string) error {
			b := &pgx.Batch{}
			b.Queue("INSERT INTO effects VALUES ('x')")
			var all []idempotency.Mark
			for _, id := range ids {
				all = append(all, mark(id))
			}
			committed, err := i.InBatch(ctx, b, all...)
			if err != nil {
				return err
			}
			if err := r.pool.SendBatch(ctx, b).Close(); err != nil {
				return err
			}
			committed()
			return nil
		}
		other := r.open(t) // as another process
		require.NoError(t, send(r.inbox, "e1", "e3", "e2"))
		require.NoError(t, send(r.inbox))
		require.Error(t, send(other, "e4", "e2"))
		require.Error(t, send(other, "e4", "e4"))
		require.ErrorContains(t, send(r.inbox, "e4", "e2"), "handled already")
		require.Equal(t, 2, r.count(t, "effects"))
		require.Equal(t, 3, r.count(t, "millrace_inbox"))
		duplicate, err := r.inbox.Send(ctx, mark("e3"), &pgx.Batch{})
		require.NoError(t, err)
		require.True(t, duplicate)
		_, err = r.inbox.InBatch(ctx, &pgx.Batch{}, idempotency.Mark{})
		require.ErrorContains(t, err, "the consumer is empty")
	})
}
