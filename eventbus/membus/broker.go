package membus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func init() { driver.Register("memory", open) }

// Config of a Broker. The zero value is usable.
type Config struct {
	// Buffer is how many events a topic keeps for groups to come and how many a
	// group may have outstanding before Publish waits. Defaults to 8192.
	Buffer int

	// BufferBytes is the same bound on the sum of payloads, in bytes. One event
	// is always taken. Defaults to 64 MiB.
	BufferBytes int

	// MaxPayload is the largest payload accepted, in bytes. Defaults to 1 MiB.
	MaxPayload int

	// Logger for events that are let go unseen. Defaults to slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Buffer == 0 {
		c.Buffer = 8192
	}
	if c.BufferBytes == 0 {
		c.BufferBytes = 64 << 20
	}
	if c.MaxPayload == 0 {
		c.MaxPayload = 1 << 20
	}
	return c
}

func (c Config) validate() error {
	var errs []error
	check := func(name string, n int) {
		if n < 0 {
			errs = append(errs, fmt.Errorf("membus: %s must not be negative, got %d", name, n))
		}
	}
	check("Buffer", c.Buffer)
	check("BufferBytes", c.BufferBytes)
	check("MaxPayload", c.MaxPayload)
	return errors.Join(errs...)
}

func open(_ context.Context, u *url.URL, o driver.Options) (driver.Broker, error) {
	c := Config{Logger: o.Logger}
	p := driver.NewParams(u)
	p.Int("buffer", &c.Buffer, 1, math.MaxInt32)
	p.Int("buffer_bytes", &c.BufferBytes, 1, math.MaxInt)
	p.Int("max_payload", &c.MaxPayload, 1, math.MaxInt32)
	if err := p.Err(); err != nil {
		return nil, fmt.Errorf("membus: %w", err)
	}
	if u.Opaque != "" || u.Host != "" || u.Path != "" {
		return nil, fmt.Errorf("membus: a memory: URL has no host and no path; every Open is a broker of its own")
	}
	return New(c)
}

// Broker is an in-memory broker; see the package comment. It is safe for
// concurrent use.
type Broker struct {
	cfg Config

	mu     sync.RWMutex
	topics map[string]*topic

	open  context.Context // ends with Close
	close context.CancelFunc
}

var (
	_ driver.Broker = (*Broker)(nil)
	_ driver.Taker  = (*Broker)(nil)
)

// New returns an empty broker.
func New(c Config) (*Broker, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	b := &Broker{cfg: c.withDefaults(), topics: map[string]*topic{}}
	b.open, b.close = context.WithCancel(context.Background())
	return b, nil
}

// Capabilities implements driver.Broker.
func (b *Broker) Capabilities() driver.Capabilities {
	return driver.Capabilities{KeyOrder: true, KeyedConcurrency: true, Groups: true, Replay: true, Delay: true, DelayedRedelivery: true, MaxPayload: b.cfg.MaxPayload}
}

// Publish implements driver.Broker. The messages of one call become visible
// together, or none does.
func (b *Broker) Publish(topic string, messages ...*message.Message) error {
	return b.publish(topic, messages, copied)
}

// Take implements driver.Taker.
func (b *Broker) Take(topic string, messages ...*message.Message) error {
	return b.publish(topic, messages, taken)
}

func (b *Broker) publish(name string, messages []*message.Message, toRecord func(*message.Message) *record) error {
	if len(messages) == 0 {
		return nil
	}
	t, err := b.topic(name)
	if err != nil {
		return err
	}
	return t.publish(messages, toRecord)
}

// Subscribe implements driver.Broker.
func (b *Broker) Subscribe(ctx context.Context, s driver.Subscription) (driver.Consumer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("membus: subscribe group %q to topic %q: %w", s.Group, s.Topic, context.Cause(ctx))
	}
	t, err := b.topic(s.Topic)
	if err != nil {
		return nil, err
	}
	return &consumer{broker: b, group: t.group(s.Group, s.Start), sub: s}, nil
}

func (b *Broker) topic(name string) (*topic, error) {
	b.mu.RLock()
	t := b.topics[name]
	b.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	if err := driver.CheckTopic(name); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Err() != nil {
		return nil, fmt.Errorf("topic %q: %w", name, driver.ErrClosed)
	}
	if t = b.topics[name]; t == nil {
		t = newTopic(b, name)
		b.topics[name] = t
	}
	return t, nil
}

// Delayed returns how many events and redeliveries are waiting for their time.
func (b *Broker) Delayed() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	n := 0
	for _, t := range b.topics {
		n += t.countDelayed()
	}
	return n
}

// Close drops every event, delayed ones included.
func (b *Broker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.close()
	for _, t := range b.topics {
		t.close()
	}
	clear(b.topics)
	return nil
}
