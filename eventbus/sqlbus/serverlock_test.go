package sqlbus

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/testserver"
)

// A replica that lagged behind, or a crash, takes commits back of which
// consumers know the positions.
func TestPositionsDoNotGoBackWithTheServer(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b := openOn(t, url, Config{})
		got := make(chan *driver.Delivery, 10)
		start(t, b, driver.Subscription{Handle: into(got)})
		require.NoError(t, b.Publish("t", batch(5)...))
		for range 5 {
			receive(t, got)
		}
		db := rawDB(t, url)
		defer db.Close()
		_, err := db.Exec("DELETE FROM millrace_events")
		require.NoError(t, err)
		back := "ALTER SEQUENCE millrace_positions RESTART"
		if strings.HasPrefix(url, "mysql") {
			back = "UPDATE millrace_topics SET position = 0"
		}
		_, err = db.Exec(back)
		require.NoError(t, err)
		require.NoError(t, b.Publish("t", msg("a", "after")))
		require.Equal(t, "after", text(receive(t, got)))
		later := msg("b", "due")
		driver.SetDue(later, time.Now().Add(50*time.Millisecond))
		require.NoError(t, b.Publish("t", later))
		require.Equal(t, "due", text(receive(t, got)))
	})
}

// Nor with the server's clock.
func TestPositionsDoNotGoBackWithTheClock(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b := openOn(t, url, Config{})
		require.NoError(t, b.Publish("t", msg("k", 1)))
		db := rawDB(t, url)
		defer db.Close()
		_, err := db.Exec("UPDATE millrace_events SET position = position + 3600000000")
		require.NoError(t, err)
		if strings.HasPrefix(url, "mysql") {
			_, err = db.Exec("UPDATE millrace_topics SET position = position + 3600000000")
			require.NoError(t, err)
		}
		first := count(t, b, "SELECT max(position) FROM millrace_events")
		later := msg("b", "due")
		driver.SetDue(later, time.Now().Add(50*time.Millisecond))
		require.NoError(t, b.Publish("t", msg("k", 2), msg("k", 3), later))
		eventually(t, "all in a row", func() bool {
			return count(t, b, "SELECT count(*) FROM millrace_events WHERE position IN (?, ?, ?)", first+1, first+2, first+3) == 3
		})
	})
}

func TestALockedTopicDoesNotStopDueEventsOfOthers(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b := openOn(t, url, Config{Connections: 3})
		got := make(chan *driver.Delivery, 10)
		start(t, b, driver.Subscription{Topic: "free", Handle: into(got)})
		require.NoError(t, b.Publish("locked", msg("k", 0))) // MySQL: it exists
		commit := stall(t, openOn(t, url, Config{}), "locked", "k", "first")
		held := batch(dueStep + 1) // more than one look finds
		soon := time.Now().Add(50 * time.Millisecond)
		for _, m := range held {
			driver.SetDue(m, soon)
		}
		require.NoError(t, b.Publish("locked", held...))
		for i := range 2 {
			m := msg("k", i)
			driver.SetDue(m, time.Now().Add(100*time.Millisecond))
			require.NoError(t, b.Publish("free", m))
			require.Equal(t, fmt.Sprint(i), text(receive(t, got)))
		}
		commit()
		eventually(t, "the locked topic's as well", func() bool { return count(t, b, "SELECT count(*) FROM millrace_due") == 0 })
	})
}

func TestLockedTopicsDoNotStopPublishingToOthers(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b, other := openOn(t, url, Config{Connections: 2}), openOn(t, url, Config{})
		published := make(chan error, 2)
		for i := range 2 {
			topic := fmt.Sprint("locked", i)
			require.NoError(t, b.Publish(topic, msg("k", 0)))
			defer func() { require.NoError(t, receive(t, published)) }()
			defer stall(t, other, topic, "k", "first")()
			go func() { published <- b.Publish(topic, msg("k", "second")) }()
		}
		silent(t, published, 100*time.Millisecond) // they wait
		require.NoError(t, b.Publish("free", msg("k", 1)))
		silent(t, published, 0)
	})
}

func TestCloseDoesNotWaitForASlot(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b, err := openServer(t.Context(), url, Config{Connections: 2})
		require.NoError(t, err)
		s := b.engine.(*server)
		s.slots <- struct{}{} // as one that waits for a server that is down
		published, closed := make(chan error, 1), make(chan error, 1)
		due := msg("k", 1)
		driver.SetDue(due, time.Now().Add(time.Hour))
		go func() { published <- b.Publish("t", due) }()
		eventually(t, "it waits", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.lanes["topic t"] != nil
		})
		go func() { closed <- b.Close() }()
		require.ErrorIs(t, receive(t, published), driver.ErrClosed)
		require.NoError(t, receive(t, closed))
	})
}

func TestProvisionOffIsErrNotProvisioned(t *testing.T) {
	refused := func(t *testing.T, err error) {
		t.Helper()
		require.ErrorIs(t, err, driver.ErrNotProvisioned)
		require.True(t, driver.IsPermanent(err))
	}
	onServers(t, func(t *testing.T, url string) {
		_, err := openServer(t.Context(), url, Config{NoProvision: true})
		refused(t, err)
	})
	t.Run("sqlite", func(t *testing.T) {
		path := tempPath(t)
		_, err := Open(t.Context(), path, Config{NoProvision: true})
		refused(t, err)
		db, err := sql.Open("sqlite", path)
		require.NoError(t, err)
		_, err = db.Exec("CREATE TABLE theirs (n INTEGER)")
		require.NoError(t, err)
		require.NoError(t, db.Close())
		_, err = Open(t.Context(), path, Config{NoProvision: true})
		refused(t, err)
	})
}

func TestSubscribeHeedsItsContextIfTheGroupExists(t *testing.T) {
	sub := driver.Subscription{Topic: "t", Group: "g", Concurrency: 1, Handle: into(nil)}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	check := func(t *testing.T, b *Broker) {
		_, err := b.Subscribe(t.Context(), sub)
		require.NoError(t, err)
		_, err = b.Subscribe(ended, sub)
		require.ErrorIs(t, err, context.Canceled)
	}
	t.Run("sqlite", func(t *testing.T) { check(t, openAt(t, tempPath(t), Config{})) })
	onServers(t, func(t *testing.T, url string) {
		check(t, openOn(t, url, Config{}))
		through, proxy := proxied(t, url)
		b := openOn(t, through, Config{NoListen: true})
		defer stopData(t, proxy, "downstream")()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := b.Subscribe(ctx, sub)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(began), 3*time.Second)
	})
}

func TestOpenOfASilentServerSaysSoInTime(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	for _, scheme := range []string{"postgres", "mysql"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			_, err := openServer(context.Background(), scheme+"://u:p@"+l.Addr().String()+"/db", Config{})
			require.ErrorContains(t, err, "no answer in time; check host, port and firewalls")
			require.Less(t, time.Since(began), 10*time.Second)
		})
	}
}

func TestMetadataOverThePacketIsTooLarge(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b := openOn(t, url, Config{})
		if b.store.maxRow == 0 {
			t.Skip("no such limit")
		}
		m := msg("k", 1)
		m.Metadata.Set("big", strings.Repeat("'", b.store.maxRow))
		err := b.Publish("t", m)
		require.ErrorIs(t, err, driver.ErrTooLarge)
		require.True(t, driver.IsPermanent(err))
		m.Metadata.Set("big", strings.Repeat("'", b.store.maxRow-1000))
		require.NoError(t, b.Publish("t", m))
	})
}

func TestLanesAreForgotten(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b := openOn(t, url, Config{})
		s := b.engine.(*server)
		require.NoError(t, b.Publish("t", msg("k", 1)))
		eventually(t, "idle lanes go", func() bool {
			s.dropLanes(0)
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.lanes) == 0
		})
		require.NoError(t, b.Publish("t", msg("k", 2)))
	})
}

// Package watermillsql publishes by way of that table.
func TestTheNextDueEventIsNoReasonToLookLess(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b := openOn(t, url, Config{})
		m := msg("k", 1)
		driver.SetDue(m, time.Now().Add(time.Hour))
		require.NoError(t, b.Publish("t", m))
		wait, err := b.moveDue()
		require.NoError(t, err)
		require.LessOrEqual(t, wait, b.store.dialect.idleDue)
	})
}

func TestASwitchOverIsTriedAgain(t *testing.T) {
	for _, code := range []uint16{1290, 1792, 1836, 1047, 1969} {
		require.NotEqual(t, refused, (&mysqlServer{}).verdict(&mysql.MySQLError{Number: code}), code)
	}
	url := newDatabase(t, testserver.Postgres)
	db := rawDB(t, url)
	defer db.Close()
	db.SetMaxOpenConns(1)
	name, _, _ := strings.Cut(url[strings.LastIndex(url, "/")+1:], "?")
	b := openOn(t, url, Config{})
	set := func(value string) {
		_, err := db.Exec("SET default_transaction_read_only = off")
		require.NoError(t, err)
		_, err = db.Exec("ALTER DATABASE " + name + " SET default_transaction_read_only = " + value)
		require.NoError(t, err)
	}
	set("on")
	cutAll(t, db, url)
	published := make(chan error, 1)
	go func() { published <- b.Publish("t", msg("k", 1)) }()
	silent(t, published, 300*time.Millisecond)
	set("off")
	require.NoError(t, receive(t, published))
}
