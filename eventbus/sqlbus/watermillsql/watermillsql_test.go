package watermillsql_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/sqlbus"
	"github.com/millrace-go/millrace/eventbus/sqlbus/watermillsql"
	"github.com/millrace-go/millrace/internal/testserver"
)

const patience = time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shared is a database with a bus on it, and a plain connection.
type shared struct {
	bus     *sqlbus.Broker
	db      *sql.DB
	schema  wsql.SchemaAdapter
	offsets wsql.OffsetsAdapter
}

func onServers(t *testing.T, test func(*testing.T, shared)) {
	t.Run("postgres", func(t *testing.T) {
		u := newDatabase(t, testserver.Postgres)
		bus, err := sqlbus.OpenPostgres(t.Context(), u.String(), sqlbus.Config{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, bus.Close()) })
		test(t, shared{bus, openDB(t, u), watermillsql.PostgresSchema{}, watermillsql.PostgresOffsets{}})
	})
	t.Run("mysql", func(t *testing.T) {
		u := newDatabase(t, testserver.MySQL)
		bus, err := sqlbus.OpenMySQL(t.Context(), u.String(), sqlbus.Config{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, bus.Close()) })
		test(t, shared{bus, openDB(t, u), watermillsql.MySQLSchema{}, watermillsql.MySQLOffsets{}})
	})
}

func newDatabase(t *testing.T, server string) *url.URL {
	u, err := url.Parse(testserver.URL(t, server))
	require.NoError(t, err)
	admin := openDB(t, u)
	name := "millrace_" + strings.ToLower(rand.Text())
	_, err = admin.Exec("CREATE DATABASE " + name)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := admin.Exec("DROP DATABASE " + name)
		require.NoError(t, err)
	})
	u.Path = "/" + name
	return u
}

func openDB(t *testing.T, u *url.URL) *sql.DB {
	name, dsn := "pgx", u.String()
	if u.Scheme == "mysql" {
		password, _ := u.User.Password()
		name, dsn = "mysql", u.User.Username()+":"+password+"@tcp("+u.Host+")"+u.Path
	}
	db, err := sql.Open(name, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func event(id, key string) *message.Message {
	m := message.NewMessage(id, []byte("payload \x00\xff of "+id))
	m.Metadata.Set("bytes", "\x00\xff")
	if key != "" {
		m.Metadata.Set(driver.MetadataKey, key)
	}
	return m
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing came in time")
		panic("unreachable")
	}
}

// consume runs a consumer of the bus.
func consume(t *testing.T, bus *sqlbus.Broker, topic, group string) <-chan *driver.Delivery {
	got := make(chan *driver.Delivery, 100)
	c, err := bus.Subscribe(t.Context(), driver.Subscription{Topic: topic, Group: group, Concurrency: 4, Handle: func(d *driver.Delivery) driver.Result {
		got <- d
		return driver.Result{}
	}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, receive(t, ended))
	})
	return got
}

func TestWatermillPublishesToTheBus(t *testing.T) {
	onServers(t, func(t *testing.T, s shared) {
		got := consume(t, s.bus, "t", "g")
		p, err := wsql.NewPublisher(s.db, wsql.PublisherConfig{SchemaAdapter: s.schema}, nil)
		require.NoError(t, err)
		var batch []*message.Message
		for i := range 20 {
			batch = append(batch, event(fmt.Sprint("e", i), "k"))
		}
		later := event("later", "k")
		driver.SetDue(later, time.Now().Add(300*time.Millisecond))
		require.NoError(t, p.Publish("t", append([]*message.Message{later}, batch...)...))
		for i := range 20 {
			d := receive(t, got)
			want := batch[i]
			require.Equal(t, []any{want.UUID, "k", string(want.Payload)}, []any{d.Message.UUID, d.Key, string(d.Message.Payload)})
			require.Equal(t, want.Metadata, d.Message.Metadata)
		}
		require.Equal(t, "later", receive(t, got).Message.UUID)
		require.NoError(t, p.Publish("t", event("nokey", "")))
		require.Equal(t, "nokey", receive(t, got).Message.UUID)
	})
}

// What is published in a transaction comes with its commit, and nothing that is
// published meanwhile is skipped or stands in its place.
func TestWatermillPublishesInATransaction(t *testing.T) {
	onServers(t, func(t *testing.T, s shared) {
		got := consume(t, s.bus, "t", "g")
		tx, err := s.db.Begin()
		require.NoError(t, err)
		p, err := wsql.NewPublisher(tx, wsql.PublisherConfig{SchemaAdapter: s.schema}, nil)
		require.NoError(t, err)
		require.NoError(t, p.Publish("t", event("first", "k")))
		published := make(chan error, 1)
		go func() { published <- s.bus.Publish("t", event("second", "k")) }()
		select {
		case d := <-got:
			require.Equal(t, "second", d.Message.UUID, "the other is not committed")
		case <-time.After(200 * time.Millisecond):
		}
		require.NoError(t, tx.Commit())
		require.NoError(t, receive(t, published))
		require.NoError(t, s.bus.Publish("t", event("third", "other")))
		seen := map[string]bool{}
		for !seen["first"] || !seen["third"] {
			seen[receive(t, got).Message.UUID] = true
		}

		aborted, err := s.db.Begin()
		require.NoError(t, err)
		p, err = wsql.NewPublisher(aborted, wsql.PublisherConfig{SchemaAdapter: s.schema}, nil)
		require.NoError(t, err)
		require.NoError(t, p.Publish("t", event("never", "k")))
		require.NoError(t, aborted.Rollback())
		require.NoError(t, s.bus.Publish("t", event("last", "k")))
		for id := ""; id != "last"; {
			id = receive(t, got).Message.UUID
			require.NotEqual(t, "never", id)
		}
	})
}

// A statement that waits for the lock of a topic sees nothing of what is
// committed meanwhile, and one after a failover nothing of what was lost.
func TestWatermillPublishesBehindWhatItDoesNotSee(t *testing.T) {
	onServers(t, func(t *testing.T, s shared) {
		got := consume(t, s.bus, "t", "g")
		publisher := func(to wsql.ContextExecutor) *wsql.Publisher {
			p, err := wsql.NewPublisher(to, wsql.PublisherConfig{SchemaAdapter: s.schema}, nil)
			require.NoError(t, err)
			return p
		}
		p := publisher(s.db)
		require.NoError(t, p.Publish("t", event("before", "k")))
		require.Equal(t, "before", receive(t, got).Message.UUID)
		tx, err := s.db.Begin()
		require.NoError(t, err)
		require.NoError(t, publisher(tx).Publish("t", event("first", "a"), event("with it", "a")))
		published := make(chan error, 1)
		go func() { published <- p.Publish("t", event("second", "b")) }()
		if _, postgres := s.schema.(watermillsql.PostgresSchema); postgres {
			require.Eventually(t, func() bool {
				var waiting bool
				require.NoError(t, s.db.QueryRow("SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory')").Scan(&waiting))
				return waiting
			}, patience, 5*time.Millisecond)
		}
		require.NoError(t, tx.Commit())
		require.NoError(t, receive(t, published))
		seen := map[string]int64{}
		for len(seen) < 3 {
			d := receive(t, got)
			seen[d.Message.UUID] = d.Position.Offset
		}
		if _, postgres := s.schema.(watermillsql.PostgresSchema); postgres {
			require.Greater(t, seen["second"], seen["with it"])
			_, err = s.db.Exec("DELETE FROM millrace_events")
			require.NoError(t, err)
		}
		require.NoError(t, p.Publish("t", event("after", "b")))
		require.Equal(t, "after", receive(t, got).Message.UUID)
	})
}

func TestWatermillSubscribesToTheBus(t *testing.T) {
	onServers(t, func(t *testing.T, s shared) {
		var want []string
		for i := range 250 {
			e := event(fmt.Sprint("e", i), fmt.Sprint("k", i%7))
			require.NoError(t, s.bus.Publish("t", e))
			want = append(want, e.UUID)
		}
		subscribe := func() (<-chan *message.Message, func()) {
			sub, err := wsql.NewSubscriber(s.db, wsql.SubscriberConfig{
				ConsumerGroup: "g", SchemaAdapter: s.schema, OffsetsAdapter: s.offsets, PollInterval: 10 * time.Millisecond, ResendInterval: time.Millisecond,
			}, nil)
			require.NoError(t, err)
			messages, err := sub.Subscribe(t.Context(), "t")
			require.NoError(t, err)
			return messages, func() { require.NoError(t, sub.Close()) }
		}
		messages, stop := subscribe()
		for i, id := range want[:200] {
			m := receive(t, messages)
			if i == 3 {
				m.Nack()
				m = receive(t, messages)
			}
			require.Equal(t, id, m.UUID)
			require.Equal(t, "payload \x00\xff of "+id, string(m.Payload))
			require.Equal(t, "\x00\xff", m.Metadata["bytes"])
			m.Ack()
		}
		// The batch is settled once its successor arrives.
		first := receive(t, messages)
		require.Equal(t, want[200], first.UUID)
		stop()

		messages, stop = subscribe()
		defer stop()
		for _, id := range want[200:] {
			m := receive(t, messages)
			require.Equal(t, id, m.UUID)
			m.Ack()
		}
	})
}

// A group may change hands.
func TestConsumerGoesOnWhereASubscriberLeftOff(t *testing.T) {
	onServers(t, func(t *testing.T, s shared) {
		require.NoError(t, s.bus.Publish("t", event("a", "k")))
		sub, err := wsql.NewSubscriber(s.db, wsql.SubscriberConfig{ConsumerGroup: "g", SchemaAdapter: s.schema, OffsetsAdapter: s.offsets}, nil)
		require.NoError(t, err)
		messages, err := sub.Subscribe(t.Context(), "t")
		require.NoError(t, err)
		receive(t, messages).Ack()
		require.Eventually(t, func() bool {
			var cursor int64
			query := "SELECT max(cursor) FROM millrace_groups"
			if _, mysql := s.schema.(watermillsql.MySQLSchema); mysql {
				query = "SELECT max(`cursor`) FROM millrace_groups"
			}
			require.NoError(t, s.db.QueryRow(query).Scan(&cursor))
			return cursor > 0
		}, patience, 5*time.Millisecond)
		require.NoError(t, sub.Close())
		require.NoError(t, s.bus.Publish("t", event("b", "k")))
		require.Equal(t, "b", receive(t, consume(t, s.bus, "t", "g")).Message.UUID)
	})
}
