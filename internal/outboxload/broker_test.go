package outboxload

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// wire is an event on its way to the broker.
type wire struct {
	ID, Key string
	N       int64
}

// broker is an HTTP server behind a proxy. It answers a request when it has
// recorded what is in it, and remembers the order of first arrivals.
type broker struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
	url   string
	cuts  int

	mu      sync.Mutex
	arrived map[string]struct{} // ids
	keys    map[string][]wire   // first arrivals
	total   int
}

func newBroker(t *testing.T) *broker {
	b := &broker{t: t, arrived: map[string]struct{}{}, keys: map[string][]wire{}}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	proxies := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	b.proxy = toxiproxy.NewProxy(proxies, "broker", "127.0.0.1:0", strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, b.proxy.Start())
	t.Cleanup(b.proxy.Stop)
	b.url = "http://" + b.proxy.Listen
	return b
}

// ServeHTTP records a request as a whole or not at all.
func (b *broker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var events []wire
	if err := json.NewDecoder(r.Body).Decode(&events); err != nil {
		w.WriteHeader(http.StatusBadRequest) // the rest was cut off
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range events {
		b.total++
		if _, repeated := b.arrived[e.ID]; !repeated {
			b.arrived[e.ID] = struct{}{}
			b.keys[e.Key] = append(b.keys[e.Key], e)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func (b *broker) has(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.arrived[id]
	return ok
}

func (b *broker) repeats() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total - len(b.arrived)
}

// disturb cuts the way to the broker now and then.
func (b *broker) disturb(ctx context.Context, every time.Duration) {
	for pause(ctx, every/2+rand.N(every)) {
		b.proxy.Stop()
		b.cuts++
		<-time.After(200*time.Millisecond + rand.N(300*time.Millisecond))
		if err := b.proxy.Start(); err != nil {
			b.t.Errorf("mend the way to the broker: %v", err)
			return
		}
	}
}

// pause waits, and reports false when ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// client is the publisher of a relay's process.
type client struct {
	url  string
	http http.Client
}

func newClient(url string) *client {
	return &client{url: url, http: http.Client{Timeout: 2 * time.Second}}
}

// Publish returns nil when the broker has answered that it has everything.
func (c *client) Publish(_ string, messages ...*message.Message) error {
	events := make([]wire, len(messages))
	for i, m := range messages {
		events[i] = wire{ID: m.UUID, Key: driver.Key(m)}
		if _, err := fmt.Sscan(string(m.Payload), &events[i].N); err != nil {
			return err
		}
	}
	body, err := json.Marshal(events)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(messages[0].Context(), http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the broker answers %s", answer.Status)
	}
	return nil
}

func (c *client) Close() error { return nil }
