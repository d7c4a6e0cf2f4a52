// Package lossy puts a proxy in front of a server that can be told to lose what
// is sent. It is for tests.
package lossy

import (
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Proxy forwards connections to a server.
type Proxy struct {
	proxy *toxiproxy.Proxy
	t     testing.TB
}

// New starts a proxy for the server at address, which ends with t.
func New(t testing.TB, address string) *Proxy {
	t.Helper()
	srv := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := toxiproxy.NewProxy(srv, t.Name(), "127.0.0.1:0", address)
	if err := p.Start(); err != nil {
		t.Fatal("start the proxy: ", err)
	}
	t.Cleanup(p.Stop)
	return &Proxy{p, t}
}

// Address is where to connect.
func (p *Proxy) Address() string { return p.proxy.Listen }

// Lose drops what is sent from now on in one direction, "upstream" (requests) or
// "downstream" (answers), and cuts connections that have sent something 200 ms
// after.
func (p *Proxy) Lose(direction string) {
	p.t.Helper()
	toxic := `{"name":"lose","type":"timeout","stream":"` + direction + `","attributes":{"timeout":200}}`
	if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		p.t.Fatal("lose what is sent: ", err)
	}
}

// Heal ends what Lose has begun. New connections are good.
func (p *Proxy) Heal() {
	p.t.Helper()
	p.proxy.Toxics.ResetToxics(p.t.Context())
}
