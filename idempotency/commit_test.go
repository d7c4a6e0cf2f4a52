package idempotency_test

import (
	"context"
	"database/sql"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/internal/lossy"
	"github.com/millrace-go/millrace/internal/aftercommit"
	"github.com/millrace-go/millrace/internal/testdb"
)

// through returns db by way of a proxy.
func through(t *testing.T, db testdb.DB) (testdb.DB, *lossy.Proxy) {
	t.Helper()
	var address string
	if db.Dialect == idempotency.Postgres {
		u, err := url.Parse(db.DSN)
		require.NoError(t, err)
		address = u.Host
	} else {
		_, rest, _ := strings.Cut(db.DSN, "@tcp(")
		address, _, _ = strings.Cut(rest, ")")
	}
	proxy := lossy.New(t, address)
	db.DSN = strings.Replace(db.DSN, address, proxy.Address(), 1)
	db.DB = db.Open(t)
	return db, proxy
}

// A COMMIT whose answer is lost, because it arrived or because it did not, is
// an error, and the next delivery finds out which it was.
func TestCommitWhoseAnswerIsLost(t *testing.T) {
	for direction, committed := range map[string]bool{"upstream": false, "downstream": true} {
		t.Run(direction, func(t *testing.T) {
			testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
				addEffects(t, db.DB)
				migrated(t, db)
				far, proxy := through(t, db)
				inbox := idempotency.NewInbox(far.DB, far.Dialect)
				calls, hooks := 0, 0
				handle := idempotency.Once(inbox, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
					aftercommit.Do(ctx, "relay", func() { hooks++ })
					if err := effect(ctx, tx, e); err != nil {
						return err
					}
					if calls++; calls == 1 {
						proxy.Lose(direction)
					}
					return nil
				})
				err := handle(t.Context(), event("e1"))
				require.ErrorContains(t, err, "commit: ")
				require.False(t, eventbus.IsPermanent(err))
				require.Zero(t, hooks)
				proxy.Heal()
				require.Eventually(t, func() bool { return (marks(t, db.DB) == 1) == committed }, waitLimit, waitTick)
				require.NoError(t, handle(t.Context(), event("e1")))
				require.Equal(t, 1, effects(t, db.DB))
				require.Equal(t, 1, marks(t, db.DB))
				if committed {
					require.Equal(t, 1, calls)
				} else {
					require.Equal(t, 2, calls)
				}
			})
		})
	}
}
