package driver

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Broker is one open connection to a broker. All methods are safe for
// concurrent use.
//
// Publish (of message.Publisher) returns nil only after every message has been
// durably accepted. It honours the context of the first message: when that
// ends, Publish returns its cause, and what was not on its way to the broker by
// then is not published later; whether what was on its way arrived is unknown.
// It does not keep the messages or their contents.
//
// Close releases the connection. It makes running consumers return [ErrClosed]
// and does not wait for their handlers. Further calls do nothing and return nil.
type Broker interface {
	message.Publisher

	// Subscribe joins a consumer group and returns once the group exists:
	// events published after it returned will reach the group. Nothing is
	// delivered before Consumer.Run. It reports an invalid subscription, or one
	// that needs what Capabilities does not offer, as an error.
	Subscribe(ctx context.Context, s Subscription) (Consumer, error)

	// Capabilities says what this broker, as configured, can promise.
	Capabilities() Capabilities
}

// Taker is a Broker that need not copy messages whose publisher gives them away.
type Taker interface {
	// Take is Publish, but the messages and all they refer to belong to the
	// broker from then on, whatever it returns.
	Take(topic string, messages ...*message.Message) error
}

// Seeker is a Broker that can move a group to another place in its topic.
type Seeker interface {
	// Seek has the group go on with the first event published at or after to; the
	// zero time means the oldest event kept, a time in the future the next one
	// published. A group that does not exist is created. It fails with ErrBusy
	// while the group has running members of that topic.
	Seek(ctx context.Context, topic, group string, to time.Time) error
}

// Consumer is one member of a consumer group.
type Consumer interface {
	// Run delivers events until ctx ends. It then stops taking new ones, waits
	// for the handlers that still run, settles their events and returns nil; the
	// contexts of handlers are the subscriber's business and not ended by ctx.
	// Broken connections are mended inside; an error means that Run can't go on,
	// which for a closed broker is ErrClosed. Run is called once; with a context
	// that has ended already it just gives the membership up.
	Run(ctx context.Context) error
}

// Subscription asks for the events of one topic on behalf of one group.
type Subscription struct {
	// Topic to read; see CheckTopic.
	Topic string

	// Group is the consumer group; see CheckGroup.
	Group string

	// Concurrency is how many events this member handles at a time, at least 1.
	Concurrency int

	// Start says where a group begins that has never read this topic. Defaults
	// to StartOldest.
	Start Start

	// Handle is called for each delivery, from at most Concurrency goroutines
	// and never for two events of one key at a time.
	Handle func(*Delivery) Result
}

// Validate reports every field that a driver could not work with.
func (s Subscription) Validate() error {
	if err := CheckTopic(s.Topic); err != nil {
		return err
	}
	if err := CheckGroup(s.Group); err != nil {
		return err
	}
	if s.Concurrency < 1 {
		return fmt.Errorf("driver: subscription of %q by %q: concurrency %d: must be at least 1", s.Topic, s.Group, s.Concurrency)
	}
	if s.Handle == nil {
		return fmt.Errorf("driver: subscription of %q by %q: no handler", s.Topic, s.Group)
	}
	return nil
}

// Start is the position at which a new consumer group begins.
type Start int

const (
	// StartOldest begins with the oldest event that the broker still holds for
	// new groups; see Capabilities.Replay.
	StartOldest Start = iota
	// StartNewest begins with the first event published after Subscribe.
	StartNewest
)

// Delivery is one event on its way to a handler.
type Delivery struct {
	// Message belongs to the handler, which may change its fields and metadata.
	// The bytes of its payload may be shared and must not be changed. Its Ack and
	// Nack mean nothing here: the Result decides.
	Message *message.Message

	// Topic the event was published to.
	Topic string

	// Key of the event, empty when it has none and so no order.
	Key string

	// Position names the event within its topic; it is the same at every
	// redelivery and for every group.
	Position Position

	// Attempt counts deliveries to this group, starting at 1. A driver may
	// forget the count when a member crashes.
	Attempt int

	// Original, if not nil, makes further messages like Message as it was
	// delivered, for another try or a dead letter. It is valid until Handle
	// returns. Without it the subscriber has to copy Message beforehand.
	Original interface{ NewMessage() *message.Message }
}

// Position names an event within its topic: an offset within a partition, the
// latter being 0 where the broker has none.
type Position struct {
	Partition int32
	Offset    int64
}

// String returns partition and offset as "3/1042".
func (p Position) String() string { return fmt.Sprintf("%d/%d", p.Partition, p.Offset) }

// Result settles a delivery. The zero value acknowledges it.
type Result struct {
	// Redeliver asks for the event again, after Delay.
	Redeliver bool

	// Delay before redelivery. Longer than zero needs
	// Capabilities.DelayedRedelivery unless Hold is set.
	Delay time.Duration

	// Hold keeps later events of the same key waiting until this one is
	// settled. Without it they overtake an event that is delayed.
	Hold bool

	// Uncounted leaves Attempt as it is: the event comes again for a reason that
	// has nothing to do with it. Only together with Hold.
	Uncounted bool
}

// Options carry what an Opener needs beside the URL.
type Options struct {
	// Logger for what a driver mends by itself. Defaults to slog.Default().
	Logger *slog.Logger
}

// Log returns the logger to use.
func (o Options) Log() *slog.Logger {
	if o.Logger == nil {
		return slog.Default()
	}
	return o.Logger
}
