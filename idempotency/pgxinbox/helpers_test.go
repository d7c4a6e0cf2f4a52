package pgxinbox_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/internal/roundtrips"
	"github.com/millrace-go/millrace/internal/testdb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an inbox on an empty database with a business table of effects.
type rig struct {
	pool  *pgxpool.Pool
	inbox *pgxinbox.Inbox
	turns *roundtrips.Counter
	db    testdb.DB
}

func newRig(t testing.TB, configure ...func(*pgxpool.Config)) rig {
	t.Helper()
	r := rig{db: testdb.New(t, idempotency.Postgres), turns: &roundtrips.Counter{}}
	c, err := pgxpool.ParseConfig(r.db.DSN)
	require.NoError(t, err)
	c.ConnConfig.DialFunc = r.turns.Dial
	for _, f := range configure {
		f(c)
	}
	r.pool, err = pgxpool.NewWithConfig(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(r.pool.Close)
	r.inbox = r.open(t)
	require.NoError(t, r.inbox.Migrate(t.Context()))
	_, err = r.pool.Exec(t.Context(), "CREATE TABLE effects (id text NOT NULL)")
	require.NoError(t, err)
	return r
}

// open returns an inbox as another process would have it.
func (r rig) open(t testing.TB, opts ...idempotency.Option) *pgxinbox.Inbox {
	t.Helper()
	inbox := pgxinbox.New(r.pool, opts...)
	t.Cleanup(func() { require.NoError(t, inbox.Close()) })
	return inbox
}

func (r rig) count(t testing.TB, table string) (n int) {
	t.Helper()
	require.NoError(t, r.pool.QueryRow(context.Background(), "SELECT count(*) FROM "+table).Scan(&n))
	return n
}

func event(id string) eventbus.Event[string] {
	return eventbus.Event[string]{
		Attributes: eventbus.Attributes{ID: id, Source: "shop"},
		Delivery:   eventbus.Delivery{Topic: "orders", Group: "billing", Attempt: 1},
		Data:       id,
	}
}

// effect is a handler that writes the event's data.
func effect(ctx context.Context, tx pgx.Tx, e eventbus.Event[string]) error {
	_, err := tx.Exec(ctx, "INSERT INTO effects VALUES ($1)", e.Data)
	return err
}

func mark(id string) idempotency.Mark {
	return idempotency.Mark{Consumer: "billing", Source: "shop", ID: id}
}
