package sqlbus

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus/driver"
)

const patience = time.Minute

func TestMain(m *testing.M) {
	if path := os.Getenv("MILLRACE_SQLBUS_VICTIM"); path != "" {
		victim(path)
		return
	}
	goleak.VerifyTestMain(m, // but for what Toxiproxy leaves behind when a proxy is closed
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"))
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func tempPath(t testing.TB) string { return filepath.Join(t.TempDir(), "bus.db") }

func openAt(t testing.TB, path string, c Config) *Broker {
	t.Helper()
	if c.Logger == nil {
		c.Logger = quiet()
	}
	b, err := Open(t.Context(), path, c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func msg(key string, payload any) *message.Message {
	m := message.NewMessage(fmt.Sprintf("id-%v", payload), fmt.Append(nil, payload))
	if key != "" {
		m.Metadata.Set(driver.MetadataKey, key)
	}
	return m
}

// start runs a consumer; stop ends it, and requires that it ended well.
func start(t testing.TB, b *Broker, s driver.Subscription) (stop func()) {
	t.Helper()
	if s.Topic == "" {
		s.Topic = "t"
	}
	if s.Group == "" {
		s.Group = "g"
	}
	s.Concurrency = max(s.Concurrency, 1)
	c, err := b.Subscribe(t.Context(), s)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		require.NoError(t, receive(t, ended))
	}
	t.Cleanup(stop)
	return stop
}

func receive[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing came in time")
		panic("unreachable")
	}
}

func silent[T any](t testing.TB, c <-chan T, d time.Duration) {
	t.Helper()
	select {
	case v := <-c:
		require.FailNow(t, "unexpected", "%v", v)
	case <-time.After(d):
	}
}

// into returns a handler that acknowledges and passes deliveries on.
func into(c chan *driver.Delivery) func(*driver.Delivery) driver.Result {
	return func(d *driver.Delivery) driver.Result {
		c <- d
		return driver.Result{}
	}
}

func text(d *driver.Delivery) string { return string(d.Message.Payload) }

func count(t testing.TB, b *Broker, query string, args ...any) int {
	t.Helper()
	n, _, err := b.store.read.number(query, args...)
	require.NoError(t, err)
	return int(n)
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, patience, 5*time.Millisecond, what)
}

// pragma runs one on the connection that writes.
func pragma(t testing.TB, b *Broker, statement string) {
	t.Helper()
	_, err := fileOf(b).writeConn.ExecContext(t.Context(), "PRAGMA "+statement)
	require.NoError(t, err)
}

func scanInto(dest any) func(*sql.Rows) (bool, error) {
	return func(rows *sql.Rows) (bool, error) { return true, rows.Scan(dest) }
}

func fileOf(b *Broker) *file { return b.engine.(*file) }
