package amqpbus

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
)

// way leads to the server through a proxy that can be disturbed.
type way struct {
	t     testing.TB
	proxy *toxiproxy.Proxy
	url   string
}

func newWay(t testing.TB, params string) *way {
	t.Helper()
	u, err := url.Parse(serverURL(t))
	require.NoError(t, err)
	proxies := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	w := &way{t: t, proxy: toxiproxy.NewProxy(proxies, "rabbitmq", "127.0.0.1:0", u.Host)}
	require.NoError(t, w.proxy.Start())
	t.Cleanup(w.proxy.Stop)
	u.Host = w.proxy.Listen
	w.url = u.String() + params
	return w
}

func (w *way) cut() { w.proxy.Stop() }

func (w *way) mend() { require.NoError(w.t, w.proxy.Start()) }

// poison disturbs both directions; heal ends that.
func (w *way) poison(kind, attributes string) (heal func()) {
	w.t.Helper()
	for _, stream := range []string{"upstream", "downstream"} {
		_, err := w.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"name":%q,"type":%q,"stream":%q,"attributes":%s}`, stream, kind, stream, attributes)))
		require.NoError(w.t, err)
	}
	return func() {
		for _, stream := range []string{"upstream", "downstream"} {
			require.NoError(w.t, w.proxy.Toxics.RemoveToxic(context.Background(), stream))
		}
	}
}

const (
	swallow  = `{"timeout":0}`
	slowness = `{"latency":100,"jitter":100}`
)
