package amqpbus

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/testserver"
)

const patience = time.Minute

// The proxy leaves goroutines behind when it is stopped under load.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
	)
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// serverURL is the real broker's.
func serverURL(t testing.TB) string { return testserver.URL(t, testserver.AMQP) }

// open opens a broker by the URL of the server and parameters.
func openWith(t testing.TB, params string) *Broker {
	t.Helper()
	return openAt(t, serverURL(t)+params)
}

func openAt(t testing.TB, rawURL string) *Broker {
	t.Helper()
	b, err := driver.Open(t.Context(), rawURL, driver.Options{Logger: quiet()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b.(*Broker)
}

// testConfig is for tests that need no other server than the real one.
func testConfig(t testing.TB) Config {
	u, err := url.Parse(serverURL(t))
	require.NoError(t, err)
	c, err := configOf(u)
	require.NoError(t, err)
	c.Logger = quiet()
	return c
}

// topicFor returns a topic that is removed, with its group "g" and others, when
// the test ends.
func topicFor(t testing.TB, groups ...string) string {
	t.Helper()
	topic := strings.ToLower(rand.Text()[:10])
	cfg := testConfig(t)
	t.Cleanup(func() {
		b, err := Open(context.Background(), cfg)
		require.NoError(t, err)
		defer b.Close()
		for _, g := range append(groups, "g") {
			assert.Eventually(t, func() bool { return b.RemoveGroup(context.Background(), topic, g) == nil }, patience, 20*time.Millisecond)
		}
		assert.NoError(t, b.RemoveTopic(context.Background(), topic))
	})
	return topic
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

// into returns a handler that acknowledges and passes deliveries on.
func into(c chan *driver.Delivery) func(*driver.Delivery) driver.Result {
	return func(d *driver.Delivery) driver.Result {
		c <- d
		return driver.Result{}
	}
}

func text(d *driver.Delivery) string { return string(d.Message.Payload) }

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	require.Eventually(t, cond, patience, 5*time.Millisecond, what)
}

// raw returns a channel of a plain client.
func raw(t testing.TB) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(serverURL(t))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	require.NoError(t, err)
	return ch
}

func deliveries() chan *driver.Delivery { return make(chan *driver.Delivery, 10000) }

func contextFor(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
