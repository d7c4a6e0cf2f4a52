package kafkabus

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus/driver"
)

const patience = time.Minute

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick")) // Sarama's
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// cluster returns an embedded Kafka with one broker.
func cluster(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	k, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100 * time.Millisecond)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k
}

// dial opens a Broker on k; few partitions make it quick.
func dial(t testing.TB, k *kfake.Cluster, c Config) *Broker {
	t.Helper()
	c.Brokers = k.ListenAddrs()
	return openWith(t, c)
}

func openWith(t testing.TB, c Config) *Broker {
	t.Helper()
	if c.Logger == nil {
		c.Logger = quiet()
	}
	if c.Partitions == 0 {
		c.Partitions = 4
	}
	b, err := Open(context.Background(), c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}

func parseURL(t testing.TB, raw string) *url.URL {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u
}

func msg(key string, payload any) *message.Message {
	m := message.NewMessage(fmt.Sprintf("id-%v", payload), fmt.Append(nil, payload))
	if key != "" {
		m.Metadata.Set(driver.MetadataKey, key)
	}
	return m
}

// member is a running consumer.
type member struct {
	t     testing.TB
	stop  context.CancelFunc
	ended chan error
}

// start runs a consumer, which must end well before the test does.
func start(t testing.TB, b *Broker, s driver.Subscription) *member {
	t.Helper()
	if s.Topic == "" {
		s.Topic = "t"
	}
	if s.Group == "" {
		s.Group = "g"
	}
	s.Concurrency = max(s.Concurrency, 1)
	c, err := b.Subscribe(context.Background(), s)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{t: t, stop: cancel, ended: make(chan error, 1)}
	done := make(chan error, 1)
	go func() {
		err := c.Run(ctx)
		m.ended <- err
		done <- err
	}()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, receive(t, done))
	})
	return m
}

// leave ends the member and waits for it.
func (m *member) leave() {
	m.t.Helper()
	m.stop()
	require.NoError(m.t, receive(m.t, m.ended))
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

// partitionOf returns the partition that a key has of n.
func partitionOf(c Config, key string, n int) int {
	p := c.partitioner().ForTopic("t").(kgo.TopicBackupPartitioner)
	return p.PartitionByBackup(&kgo.Record{Key: []byte(key)}, n, nil)
}
