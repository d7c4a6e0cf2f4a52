package brokerfaults

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	_ "github.com/millrace-go/millrace/eventbus/amqpbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/kafkabus"
	_ "github.com/millrace-go/millrace/eventbus/sqlbus"
	"github.com/millrace-go/millrace/internal/testserver"
)

// way is the way to a broker: through a proxy that can be disturbed.
type way struct {
	t      *testing.T
	server string
	url    *url.URL
	proxy  *toxiproxy.Proxy
	toxics []string
	addr   string // of the proxy, in all its lives
	prefix string // of names, for the server is not ours alone
}

func newWay(t *testing.T, server, raw string) *way {
	u, err := url.Parse(raw)
	require.NoError(t, err)
	proxies := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	w := &way{t: t, server: server, url: u, prefix: "faults-" + strings.ToLower(rand.Text()[:8]) + ".", proxy: toxiproxy.NewProxy(proxies, server, "127.0.0.1:0", u.Host)}
	require.NoError(t, w.proxy.Start())
	w.addr = w.proxy.Listen
	t.Cleanup(w.proxy.Stop)
	return w
}

// open opens another connection, as another process would have.
func (w *way) open() driver.Broker {
	b, err := w.dial()
	require.NoError(w.t, err)
	w.t.Cleanup(func() {
		if err := b.Close(); err != nil {
			w.t.Logf("close: %v", err) // the way may be gone
		}
	})
	return b
}

func (w *way) dial() (driver.Broker, error) {
	if w.server == testserver.Kafka { // whose brokers say themselves where they are
		return kafkabus.Open(w.t.Context(), kafkabus.Config{
			Brokers:    []string{w.url.Host},
			Partitions: 8, SessionTimeout: 6 * time.Second,
			Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, w.addr)
			},
		})
	}
	u := *w.url
	u.Host = w.addr
	return driver.Open(w.t.Context(), u.String(), driver.Options{})
}

func (w *way) cut() { w.proxy.Stop() }

func (w *way) mend() { require.NoError(w.t, w.proxy.Start()) }

func (w *way) slow(latency fmt.Stringer) {
	ms := strings.TrimSuffix(latency.String(), "ms")
	w.poison(`{"name":"%[1]s","stream":"%[1]s","type":"latency","attributes":{"latency":` + ms + `,"jitter":` + ms + `}}`)
}

// swallow keeps connections open and carries nothing.
func (w *way) swallow() {
	w.poison(`{"name":"%[1]s","stream":"%[1]s","type":"timeout","attributes":{"timeout":0}}`)
}

func (w *way) poison(toxic string) {
	for _, stream := range []string{"upstream", "downstream"} {
		added, err := w.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(toxic, stream)))
		require.NoError(w.t, err)
		w.toxics = append(w.toxics, added.Name)
	}
}

func (w *way) clear() {
	for _, name := range w.toxics {
		require.NoError(w.t, w.proxy.Toxics.RemoveToxic(context.Background(), name))
	}
	w.toxics = nil
}
