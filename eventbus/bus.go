package eventbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	_ "github.com/millrace-go/millrace/eventbus/membus" // memory: is always there
)

// Bus is an open connection to a broker. It is a Watermill message.Publisher;
// Subscriber makes a Watermill message.Subscriber of it. All methods are safe
// for concurrent use.
type Bus struct {
	broker driver.Broker
	take   func(topic string, messages ...*message.Message) error // the broker's Take or else Publish
	name   string                                                 // redacted URL or what else names it in errors
	source string
}

var _ message.Publisher = (*Bus)(nil)

// BusOption configures a Bus.
type BusOption func(*busConfig)

type busConfig struct {
	source string
	logger *slog.Logger
}

// Source names the program in the source attribute of events that it publishes
// outside of a service's handlers. Defaults to the program's name.
func Source(name string) BusOption {
	return func(c *busConfig) { c.source = name }
}

// BusLogger sets the logger of the driver. Defaults to slog.Default().
func BusLogger(l *slog.Logger) BusOption {
	return func(c *busConfig) { c.logger = l }
}

// Open opens the broker that url names; an empty url means "memory:". The
// scheme chooses the driver, which must be imported (memory always is).
// Unknown schemes and parameters are errors that list the known ones; errors
// never repeat a password. The caller closes the Bus, after its services ended.
func Open(ctx context.Context, url string, opts ...BusOption) (*Bus, error) {
	if url == "" {
		url = "memory:"
	}
	c := collectBus(opts)
	b, err := driver.Open(ctx, url, driver.Options{Logger: c.logger})
	if err != nil {
		return nil, fmt.Errorf("eventbus: open %s: %w", driver.Redact(url), err)
	}
	return newBus(b, driver.Redact(url), c), nil
}

// New makes a Bus of a broker that a driver package opened from its own Config.
// The Bus closes it.
func New(b driver.Broker, opts ...BusOption) (*Bus, error) {
	if b == nil {
		return nil, errors.New("eventbus: New: the broker is nil")
	}
	return newBus(b, fmt.Sprintf("%T", b), collectBus(opts)), nil
}

func newBus(b driver.Broker, name string, c busConfig) *Bus {
	bus := &Bus{broker: b, take: b.Publish, name: name, source: c.source}
	if t, ok := b.(driver.Taker); ok {
		bus.take = t.Take
	}
	return bus
}

func collectBus(opts []BusOption) busConfig {
	var c busConfig
	for _, opt := range opts {
		opt(&c)
	}
	return c
}

// Publish implements message.Publisher for untyped messages; Topic.Publish is
// the typed way in. It returns nil only after the broker has durably accepted
// all messages, and a *driver.BatchError if it accepted only some. It ends with
// the context of the first message.
func (b *Bus) Publish(topic string, messages ...*message.Message) error {
	return b.publish(topic, messages, b.broker.Publish)
}

func (b *Bus) publish(topic string, messages []*message.Message, by func(string, ...*message.Message) error) error {
	if !b.broker.Capabilities().Delay {
		for _, m := range messages {
			if due, err := driver.Due(m); err != nil || !due.IsZero() {
				return driver.Permanent(fmt.Errorf("eventbus: publish to topic %q: event %s has a due time: %w (%s); publish it through an outbox", topic, m.UUID, ErrUnsupported, b.name))
			}
		}
	}
	if err := by(topic, messages...); err != nil {
		return fmt.Errorf("eventbus: publish: %w", err)
	}
	return nil
}

// Seek has a group go on with the first event of the topic that was published at
// or after to, instead of where it was; the zero time means the oldest event
// kept, a time in the future the next one published. The group of a service's
// unnamed handler is the service's name. No member may be running (ErrBusy), and
// the broker must be able to (ErrUnsupported, see Capabilities).
func (b *Bus) Seek(ctx context.Context, topic, group string, to time.Time) error {
	seeker, ok := b.broker.(driver.Seeker)
	if !ok {
		return driver.Permanent(fmt.Errorf("eventbus: seek group %q of topic %q: %w (%s)", group, topic, ErrUnsupported, b.name))
	}
	if err := seeker.Seek(ctx, topic, group, to); err != nil {
		return fmt.Errorf("eventbus: seek: %w", err)
	}
	return nil
}

// String returns the URL that the bus was opened with, without secrets.
func (b *Bus) String() string { return b.name }

// Source returns what the Source option set.
func (b *Bus) Source() string { return b.source }

// Capabilities says what the broker can promise.
func (b *Bus) Capabilities() driver.Capabilities { return b.broker.Capabilities() }

// Close closes the connection to the broker. Services that still run end with
// ErrClosed. Further calls return nil.
func (b *Bus) Close() error {
	if err := b.broker.Close(); err != nil {
		return fmt.Errorf("eventbus: close: %w", err)
	}
	return nil
}
