package idempotency_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/roundtrips"
	"github.com/millrace-go/millrace/internal/testdb"
)

// On PostgreSQL the business transaction alone takes three round trips, and Once
// four.
func TestRoundTrips(t *testing.T) {
	ctx := t.Context()
	server := testdb.New(t, idempotency.Postgres)
	var trips roundtrips.Counter
	config, err := pgx.ParseConfig(server.DSN)
	require.NoError(t, err)
	config.DialFunc = trips.Dial
	pool := stdlib.OpenDB(*config)
	defer pool.Close()
	pool.SetMaxOpenConns(1)
	db := testdb.DB{DB: pool, Dialect: idempotency.Postgres}
	addEffects(t, pool)
	inbox, other := migrated(t, db), idempotency.NewInbox(pool, idempotency.Postgres) // another process
	write := func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO effects VALUES ($1)", e.Data)
		return err
	}
	once := func(inbox *idempotency.Inbox, e eventbus.Event[string]) int64 {
		return trips.Of(func() { require.NoError(t, idempotency.Once(inbox, write)(ctx, e)) })
	}
	for _, i := range []*idempotency.Inbox{inbox, other} { // prepares the statements
		once(i, event(fmt.Sprintf("%p", i)))
	}
	require.EqualValues(t, 3, trips.Of(func() {
		tx, err := pool.BeginTx(ctx, nil)
		require.NoError(t, err)
		require.NoError(t, write(ctx, tx, event("e0")))
		require.NoError(t, tx.Commit())
	}), "the business transaction alone")

	require.EqualValues(t, 4, once(inbox, event("e1")), "new: BEGIN, INSERT, effect, COMMIT")
	require.EqualValues(t, 0, once(inbox, event("e1")), "a duplicate that is remembered")
	require.EqualValues(t, 4, once(other, event("e2")))
	again := event("e2")
	again.Attempt = 2
	require.EqualValues(t, 1, once(inbox, again), "delivered again, after another process handled it: a look")
	require.EqualValues(t, 4, once(other, event("e3")))
	require.EqualValues(t, 1, once(inbox, event("e3")), "the next of a run: a look")
	require.EqualValues(t, 5, once(inbox, event("e4")), "the first new one after a run: a look in vain")
	require.EqualValues(t, 4, once(other, event("e5")))
	require.EqualValues(t, 3, once(inbox, event("e5")), "a duplicate out of the blue: BEGIN, INSERT, ROLLBACK")

	const n = 50
	batch := func(from string) int64 {
		events := make([]eventbus.Event[string], n)
		for i := range events {
			events[i] = event(fmt.Sprintf("%s-%d", from, i))
		}
		return trips.Of(func() { require.NoError(t, idempotency.OnceBatch(inbox, write)(ctx, events)) })
	}
	batch("warm")
	require.EqualValues(t, n+3, batch("b"), "BEGIN, INSERT, n effects, COMMIT")
	require.EqualValues(t, 0, batch("b"))
	require.EqualValues(t, 5, once(inbox, event("e6")), "the suspicion that e5 has raised")
	failing := errors.New("oops")
	require.EqualValues(t, 4, trips.Of(func() {
		err := idempotency.Once(inbox, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[string]) error {
			return errors.Join(write(ctx, tx, e), failing)
		})(ctx, event("e7"))
		require.ErrorIs(t, err, failing)
	}))
}

// A duplicate that is remembered costs no memory.
func TestRememberedDuplicateDoesNotAllocate(t *testing.T) {
	inbox := newInbox(t, newDB(t))
	handle := idempotency.Once(inbox, effect)
	e := event("0198c5a1-7a3e-7cc3-98f5-0123456789ab")
	require.NoError(t, handle(t.Context(), e))
	m := mark(e.ID)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		if duplicate, err := inbox.Transact(context.Background(), m, nil); err != nil || !duplicate {
			t.Error(duplicate, err)
		}
	}))
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		if err := handle(context.Background(), e); err != nil {
			t.Error(err)
		}
	}), 1.0)
}
