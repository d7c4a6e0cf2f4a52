package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// load publishes sequences of many keys and checks what two members of a group
// are given: nothing that was acknowledged is missing, no event comes before its
// predecessor was handled, and no two of a key at a time.
type load struct {
	t      testing.TB
	topic  string
	acked  atomic.Int64
	stop   atomic.Bool
	mu     sync.Mutex
	done   map[string]int // by key, the last that was handled
	busy   map[string]bool
	broken []string
}

const loadPublishers = 8

func (l *load) handle(d *driver.Delivery) driver.Result {
	var n int
	_, _ = fmt.Sscan(text(d), &n)
	l.mu.Lock()
	last, known := l.done[d.Key]
	if l.busy[d.Key] {
		l.broken = append(l.broken, "two events of "+d.Key+" at a time")
	}
	if known && n > last+1 || !known && n != 0 {
		l.broken = append(l.broken, fmt.Sprintf("%s: %d came after %d", d.Key, n, last))
	}
	l.busy[d.Key] = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.busy[d.Key] = false
		l.done[d.Key] = max(n, l.done[d.Key])
	}()
	return driver.Result{}
}

// publish sends the sequence of one key until it is told to stop, at least min
// events. What fails is sent again.
func (l *load) publish(b *Broker, key string, min int) (sent int) {
	for sent < min || !l.stop.Load() {
		for b.Publish(l.topic, msg(key, sent)) != nil {
			if l.t.Context().Err() != nil {
				return sent
			}
		}
		sent++
		l.acked.Add(1)
	}
	return sent
}

// under runs the load while disturb happens.
func under(t *testing.T, brokers [2]*Broker, topic string, min int, disturb func(l *load)) {
	l := &load{t: t, topic: topic, done: map[string]int{}, busy: map[string]bool{}}
	for _, b := range brokers {
		start(t, b, driver.Subscription{Topic: topic, Concurrency: 8, Handle: l.handle})
	}
	var publishing sync.WaitGroup
	sent := make([]int, loadPublishers)
	for i := range sent {
		publishing.Go(func() { sent[i] = l.publish(brokers[i%2], fmt.Sprint("key-", i), min) })
	}
	l.await(100)
	disturb(l)
	l.stop.Store(true)
	publishing.Wait()
	eventually(t, "all events to be handled", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, n := range sent {
			if n > 0 && l.done[fmt.Sprint("key-", i)] != n-1 {
				return false
			}
		}
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(t, l.broken)
}

// await returns when n further events were acknowledged.
func (l *load) await(n int64) {
	l.t.Helper()
	until := l.acked.Load() + n
	eventually(l.t, "publishing to go on", func() bool { return l.acked.Load() >= until })
}

func TestRebalanceUnderLoadKeepsOrder(t *testing.T) {
	k := cluster(t)
	under(t, [2]*Broker{dial(t, k, Config{}), dial(t, k, Config{})}, "t", 100, func(l *load) {
		for range 3 {
			m := start(t, dial(t, k, Config{}), driver.Subscription{Topic: l.topic, Concurrency: 4, Handle: l.handle})
			l.await(200)
			m.leave()
			l.await(50)
		}
	})
}

func TestBrokerRestarts(t *testing.T) {
	dir := t.TempDir()
	k := cluster(t, kfake.DataDir(dir), kfake.SyncWrites())
	_, port, err := net.SplitHostPort(addressOf(k))
	require.NoError(t, err)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	c := Config{PublishTimeout: 5 * time.Second}
	under(t, [2]*Broker{dial(t, k, c), dial(t, k, c)}, "t", 100, func(l *load) {
		for range 2 {
			k.Close()
			k = cluster(t, kfake.DataDir(dir), kfake.SyncWrites(), kfake.Ports(number))
			l.await(100)
		}
	})
}

// proxied returns a proxy in front of k and a Config that goes through it,
// although the brokers advertise their own address.
func proxied(t *testing.T, k *kfake.Cluster) (*toxiproxy.Proxy, Config) {
	t.Helper()
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "kafka", "127.0.0.1:0", addressOf(k))
	require.NoError(t, p.Start())
	t.Cleanup(p.Stop)
	address := p.Listen
	return p, Config{PublishTimeout: 20 * time.Second, SessionTimeout: 6 * time.Second, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
}

func poison(t testing.TB, p *toxiproxy.Proxy, name, toxic string) (heal func()) {
	t.Helper()
	_, err := p.Toxics.AddToxicJson(strings.NewReader(toxic))
	require.NoError(t, err)
	return func() { require.NoError(t, p.Toxics.RemoveToxic(context.Background(), name)) }
}

func TestConnectionIsCut(t *testing.T) {
	k := cluster(t)
	p, c := proxied(t, k)
	under(t, [2]*Broker{dial(t, k, c), dial(t, k, c)}, "t", 100, func(l *load) {
		for range 3 {
			p.Stop()
			require.NoError(t, p.Start())
			l.await(100)
		}
	})
}

func TestConnectionIsSlow(t *testing.T) {
	k := cluster(t)
	p, c := proxied(t, k)
	under(t, [2]*Broker{dial(t, k, c), dial(t, k, c)}, "t", 20, func(l *load) {
		heal := poison(t, p, "slow", `{"name":"slow","type":"latency","attributes":{"latency":150,"jitter":100}}`)
		l.await(100)
		heal()
		l.await(100)
	})
}

// Nothing comes back, and nobody says so.
func TestConnectionIsHalfOpen(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as an answer may")
	}
	k := cluster(t)
	p, c := proxied(t, k)
	under(t, [2]*Broker{dial(t, k, c), dial(t, k, c)}, "t", 20, func(l *load) {
		heal := poison(t, p, "mute", `{"name":"mute","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`)
		before := l.acked.Load()
		<-time.After(2 * time.Second) // the outage
		require.LessOrEqual(t, l.acked.Load()-before, int64(loadPublishers))
		heal()
		l.await(100)
	})
}

// What waits for a broker is not in the hands of the client.
func TestPublishThatWasGivenUpInAnOutageIsNotPublishedLater(t *testing.T) {
	k := cluster(t)
	p, c := proxied(t, k)
	b := dial(t, k, c)
	require.NoError(t, b.Publish("t", msg("k", "first")))
	p.Stop()
	until := func(ctx context.Context, payload string) <-chan error {
		m := msg("k", payload)
		m.SetContext(ctx)
		result := make(chan error, 1)
		go func() { result <- b.Publish("t", m) }()
		return result
	}
	brief, done := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer done()
	require.ErrorIs(t, receive(t, until(brief, "on its way")), context.DeadlineExceeded)
	eventually(t, "the outage to be noticed", func() bool { return b.conn.lastErr.Load() != nil })

	reason := errors.New("abandoned")
	ctx, cancel := context.WithCancelCause(t.Context())
	impatient, patient := until(ctx, "impatient"), until(t.Context(), "patient")
	cancel(reason)
	require.ErrorIs(t, receive(t, impatient), reason)
	require.NoError(t, p.Start())
	require.NoError(t, receive(t, patient))
	got := make(chan *driver.Delivery, 10)
	start(t, b, driver.Subscription{Handle: into(got)})
	require.Equal(t, "first", text(receive(t, got)))
	next := text(receive(t, got))
	if next == "on its way" { // it may have arrived
		next = text(receive(t, got))
	}
	require.Equal(t, "patient", next)
}

// The client fails all of a partition together when the context of the first
// event ends; the others are sent again.
func TestNeighbourOfACancelledPublishIsSentAgain(t *testing.T) {
	b := dial(t, cluster(t), Config{})
	require.True(t, b.mend(t.Context(), b.current(), "t", []error{nil, context.Canceled}))
	require.True(t, b.mend(t.Context(), b.current(), "t", []error{context.DeadlineExceeded}))
	require.False(t, b.mend(t.Context(), b.current(), "t", []error{kerr.InvalidRecord}))
	ended, end := context.WithCancel(t.Context())
	end()
	require.False(t, b.mend(ended, b.current(), "t", []error{context.Canceled}))
}
