package idempotency_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/millrace-go/millrace/idempotency"
)

// Whatever comes in whatever batches, by processes with memories of their own,
// is handled once, and each outcome is what a plain set says.
func TestBatchesAgainstAModel(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	require.NoError(t, err)
	defer db.Close()
	db.SetMaxOpenConns(1)
	addEffects(t, db)
	newInbox(t, db)
	oops := errors.New("oops")
	ids := rapid.SliceOfN(rapid.StringMatching("[a-h]"), 0, 8)
	rapid.Check(t, func(rt *rapid.T) {
		_, err := db.Exec("DELETE FROM millrace_inbox")
		require.NoError(rt, err)
		_, err = db.Exec("DELETE FROM effects")
		require.NoError(rt, err)
		processes := []*idempotency.Inbox{idempotency.NewInbox(db, idempotency.SQLite), idempotency.NewInbox(db, idempotency.SQLite, idempotency.Recent(2))}
		handled := map[string]bool{}
		rt.Repeat(map[string]func(*rapid.T){
			"batch": func(rt *rapid.T) {
				batch, failing := ids.Draw(rt, "batch"), ids.Draw(rt, "failing")
				inbox := rapid.SampledFrom(processes).Draw(rt, "process")
				duplicate, err := inbox.Batch(context.Background(), batchOf(batch...), func(ctx context.Context, tx *sql.Tx, n int) error {
					if handled[batch[n]] {
						rt.Fatalf("%s was handled already", batch[n])
					}
					if err := write(ctx, tx, batch[n]); err != nil {
						return err
					}
					if slices.Contains(failing, batch[n]) {
						return oops
					}
					return nil
				})
				errs := make([]error, len(batch))
				if failed := (*idempotency.BatchError)(nil); errors.As(err, &failed) {
					errs = failed.Errs
				} else {
					require.NoError(rt, err)
				}
				for n, id := range batch {
					fails := !handled[id] && slices.Contains(failing, id)
					require.Equal(rt, fails, errs[n] != nil, id)
					require.Equal(rt, !fails && (handled[id] || slices.Contains(batch[:n], id)), duplicate[n], id)
				}
				for n, id := range batch {
					handled[id] = handled[id] || errs[n] == nil
				}
			},
			"": func(rt *rapid.T) {
				n := 0
				for _, h := range handled {
					if h {
						n++
					}
				}
				for _, table := range []string{"effects", "millrace_inbox"} {
					var got int
					require.NoError(rt, db.QueryRow("SELECT count(*) FROM "+table).Scan(&got))
					require.Equal(rt, n, got, table)
				}
			},
		})
	})
}
