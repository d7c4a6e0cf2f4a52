package idempotency_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/testdb"
)

// Settings of the drivers that change how statements travel, and what they say
// about affected rows, change nothing.
func TestSettingsOfTheDrivers(t *testing.T) {
	for _, c := range []struct {
		dialect  idempotency.Dialect
		settings string
	}{
		{idempotency.Postgres, "&default_query_exec_mode=exec"},
		{idempotency.Postgres, "&default_query_exec_mode=simple_protocol"},
		{idempotency.Postgres, "&default_query_exec_mode=cache_describe"},
		{idempotency.MySQL, "?clientFoundRows=true"},
		{idempotency.MySQL, "?interpolateParams=true"},
		{idempotency.MySQL, "?collation=latin1_swedish_ci"},
		{idempotency.MySQL, "?tx_isolation=%27SERIALIZABLE%27"},
		{idempotency.MySQL, "?tx_isolation=%27READ-COMMITTED%27"},
	} {
		t.Run(c.dialect.String()+" "+c.settings[1:], func(t *testing.T) {
			db := testdb.New(t, c.dialect)
			addEffects(t, db.DB)
			db.DSN += c.settings
			db.DB = db.Open(t)
			inbox := migrated(t, db, idempotency.Recent(0))
			for range 2 {
				require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")))
			}
			oops := errors.New("oops")
			duplicate, err := inbox.Batch(t.Context(), batchOf("e1", "e\\2", `e"3`, "e4"), func(ctx context.Context, tx *sql.Tx, n int) error {
				if n == 3 {
					return oops
				}
				return write(ctx, tx, "x")
			})
			require.ErrorIs(t, err, oops)
			require.Equal(t, []bool{true, false, false, false}, duplicate)
			require.Equal(t, 3, effects(t, db.DB))
			require.Equal(t, 3, marks(t, db.DB))
			fillMarks(t, db, 1001, 31*24*time.Hour)
			n, err := inbox.Prune(t.Context())
			require.NoError(t, err)
			require.EqualValues(t, 1001, n)
		})
	}
}
