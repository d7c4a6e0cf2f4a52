package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Broker is a connection to a Kafka cluster; see the package comment. It is safe
// for concurrent use.
type Broker struct {
	cfg  Config
	conn *connection

	open  context.Context // ends with Close
	close context.CancelFunc
	calls sync.WaitGroup // of short calls; added to under mu while open

	mu       sync.RWMutex
	client   *kgo.Client      // for publishing and administration
	topics   map[string]topic // that are known to exist
	creating chan struct{}    // holds a token while topics are looked up or created
	pinging  chan struct{}    // holds one while somebody tries whether a broker answers
}

var (
	_ driver.Broker = (*Broker)(nil)
	_ driver.Seeker = (*Broker)(nil)
)

// Open connects to the cluster. It reports every invalid field of c, and a
// cluster that can't be reached or refuses the credentials within ten seconds.
// ctx bounds the opening only. The caller closes the Broker.
func Open(ctx context.Context, c Config) (*Broker, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	conn, err := c.connection()
	if err == nil {
		err = conn.prove(ctx)
	}
	if eof := new(*kgo.ErrFirstReadEOF); errors.Is(err, io.EOF) && !errors.As(err, eof) && c.User != "" { // how some refuse them
		err = fmt.Errorf("%w: the broker closed the connection: %w", kerr.SaslAuthenticationFailed, err)
	}
	if err != nil {
		return nil, fmt.Errorf("kafkabus: open %s: %w", strings.Join(c.Brokers, ","), explain(err))
	}
	b := &Broker{cfg: c, conn: conn, topics: map[string]topic{}, creating: make(chan struct{}, 1), pinging: make(chan struct{}, 1)}
	b.open, b.close = context.WithCancel(context.Background())
	if b.client, err = b.newClient(); err != nil {
		return nil, fmt.Errorf("kafkabus: open %s: %w", strings.Join(c.Brokers, ","), err)
	}
	return b, nil
}

// newClient returns a client that publishes.
func (b *Broker) newClient() (*kgo.Client, error) {
	return b.conn.client(
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProduceRequestTimeout(acksTimeout),
		kgo.ProducerBatchMaxBytesFn(b.batchBytes),
		kgo.BrokerMaxWriteBytes(100<<20),
		kgo.MaxBufferedBytes(max(maxBuffered, 2*b.cfg.MaxPayload)),
		kgo.ProducerBatchCompression(b.cfg.codec()),
		kgo.ProducerLinger(b.cfg.Linger),
		kgo.RecordPartitioner(b.cfg.partitioner()),
		kgo.AlwaysRetryEOF(), // Open has shown that it is no wrong configuration
	)
}

// current returns the client in use.
func (b *Broker) current() *kgo.Client {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.client
}

func (b *Broker) admin() *kadm.Client { return kadm.NewClient(b.current()) }

// replace puts a new client in place of spent, whose idempotent producer can't go
// on. What spent holds fails and is tried again by those who wait for it.
func (b *Broker) replace(spent *kgo.Client) {
	fresh, err := b.newClient()
	if err != nil {
		return // it was made from the same options before; callers go on failing
	}
	b.mu.Lock()
	swap := b.client == spent && b.open.Err() == nil
	if swap {
		b.client = fresh
	}
	b.mu.Unlock()
	if !swap {
		spent = fresh
	}
	spent.Close()
}

// Capabilities implements driver.Broker.
func (b *Broker) Capabilities() driver.Capabilities {
	return driver.Capabilities{
		KeyOrder: true, KeyedConcurrency: true, Groups: true, Replay: true, Seek: true,
		DelayedRedelivery: true, Durable: true, MaxPayload: b.cfg.MaxPayload,
	}
}

// Subscribe implements driver.Broker. It creates the topic and, by storing where
// it begins, the group.
func (b *Broker) Subscribe(ctx context.Context, s driver.Subscription) (driver.Consumer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if err := b.enter(); err != nil {
		return nil, b.errorf("subscribe", s.Topic, s.Group, err)
	}
	defer b.calls.Done()
	if err := b.createGroup(ctx, s); err != nil {
		return nil, b.errorf("subscribe", s.Topic, s.Group, b.translate(ctx, err))
	}
	return newConsumer(b, s), nil
}

func (b *Broker) errorf(operation, topic, group string, err error) error {
	return fmt.Errorf("kafkabus: %s group %q to topic %q: %w", operation, group, topic, err)
}

// enter begins a short call; calls.Done ends it.
func (b *Broker) enter() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.open.Err() != nil {
		return driver.ErrClosed
	}
	b.calls.Add(1)
	return nil
}

// Close ends running consumers, which leave their groups when the handlers that
// run have returned, and everything else at once.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.close()
	client := b.client
	b.mu.Unlock()
	client.Close()
	b.calls.Wait()
	return nil
}

// untilClosed returns ctx, ending with driver.ErrClosed when the broker closes.
func (b *Broker) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(b.open, func() { cancel(driver.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// is reports whether err is one of targets.
func is(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
