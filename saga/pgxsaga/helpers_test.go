package pgxsaga_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/internal/roundtrips"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/internal/storetest"
	"github.com/millrace-go/millrace/saga/pgxsaga"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a store on an empty database, with what it stands on. Its inbox forgets
// at once, so that duplicates are found in the database.
type rig struct {
	*pgxsaga.Store
	db    testdb.DB
	pool  *pgxpool.Pool
	box   *pgxoutbox.Outbox
	turns *roundtrips.Counter
}

func newRig(t testing.TB, configure ...func(*pgxpool.Config)) rig {
	t.Helper()
	r := rig{db: testdb.New(t, saga.Postgres), turns: &roundtrips.Counter{}}
	c, err := pgxpool.ParseConfig(r.db.DSN)
	require.NoError(t, err)
	c.ConnConfig.DialFunc = r.turns.Dial
	for _, f := range configure {
		f(c)
	}
	r.pool, err = pgxpool.NewWithConfig(t.Context(), c)
	require.NoError(t, err)
	t.Cleanup(r.pool.Close)
	r.box = pgxoutbox.New(r.pool, outbox.Logger(slog.New(slog.DiscardHandler)))
	inbox := pgxinbox.New(r.pool, idempotency.Recent(0))
	r.Store = pgxsaga.NewStore(r.pool, r.box, inbox)
	t.Cleanup(func() {
		require.NoError(t, r.box.Close())
		require.NoError(t, inbox.Close())
		require.NoError(t, r.Close())
	})
	require.NoError(t, r.box.Migrate(t.Context()))
	require.NoError(t, inbox.Migrate(t.Context()))
	require.NoError(t, r.Migrate(t.Context()))
	return r
}

// published reads the log of the outbox, and what is due later.
func (r rig) published(t *testing.T) []saga.Message {
	t.Helper()
	return storetest.Published(t, r.db.DB)
}

// transition is one of an instance, by an event of its own, with two messages.
func transition(id string, revision int64) saga.Commit {
	at := time.Now().UTC().Truncate(time.Millisecond)
	i := saga.Instance{Saga: "s", ID: id, Version: 1, Revision: revision, Status: saga.Running, Created: at, Updated: at, State: []byte(`{"total":100}`), Progress: []byte(`{}`)}
	event := fmt.Sprintf("e-%s-%d", id, revision)
	c := saga.Commit{
		Consumer: "shop.s", Source: "stock", EventID: event, Instance: i,
		Entry: saga.Entry{Saga: "s", ID: id, Revision: revision, At: at, Event: "stock.reserved", EventID: event, State: i.State},
	}
	for _, topic := range []string{"stock.reserve", "saga.s.control"} {
		c.Messages = append(c.Messages, saga.Message{Topic: topic, Message: message.NewMessage(topic+"-"+event, []byte(`{"order":1}`))})
	}
	driver.SetDue(c.Messages[1].Message, at.Add(time.Hour)) // the timeout
	return c
}
