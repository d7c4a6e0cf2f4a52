package idempotency_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
)

// The memory is bounded, and what it has forgotten is still in the table.
func TestWhatIsForgottenIsFoundInTheTable(t *testing.T) {
	db := newDB(t)
	inbox := newInbox(t, db, idempotency.Recent(3))
	nothing := func(context.Context, *sql.Tx) error { return nil }
	for n := range 5 {
		duplicate, err := inbox.Transact(t.Context(), mark(fmt.Sprint(n)), nothing)
		require.NoError(t, err)
		require.False(t, duplicate)
	}
	for n := range 5 {
		duplicate, err := inbox.Transact(t.Context(), mark(fmt.Sprint(n)), nothing)
		require.NoError(t, err)
		require.True(t, duplicate)
	}
	stats, err := inbox.Stats(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 5, stats.Duplicates)
	require.Zero(t, stats.Remembered, "each had been pushed out by the others")
}

// Nothing is remembered that was not committed.
func TestMarkOfTheCallerIsNotRemembered(t *testing.T) {
	db := newDB(t)
	inbox := newInbox(t, db)
	tx, err := db.Begin()
	require.NoError(t, err)
	fresh, err := inbox.Mark(t.Context(), tx, mark("e1"))
	require.NoError(t, err)
	require.True(t, fresh)
	require.NoError(t, tx.Rollback())
	require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")))
	require.Equal(t, 1, effects(t, db))
}
