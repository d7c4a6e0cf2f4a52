package eventbus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// WatermillConfig hands a Watermill publisher and subscriber to FromWatermill.
type WatermillConfig struct {
	// Publisher to publish with, dead letters included. The Bus closes it.
	Publisher message.Publisher

	// Subscriber returns the subscriber for a consumer group; where groups are
	// configured is the adapter's business. The Bus closes it. May be nil if
	// nothing is subscribed to.
	Subscriber func(group string) (message.Subscriber, error)

	// Capabilities that you vouch for. Delay, DelayedRedelivery and Seek can't be
	// offered over a Watermill adapter and are refused.
	Capabilities driver.Capabilities
}

// FromWatermill makes a Bus of a Watermill adapter. Drain-first shutdown,
// retries in place, dead letters and order per key within what the adapter
// hands out at a time work as on any Bus; the rest is up to the adapter. A
// message without a UUID gets a fresh id at each delivery, by which no inbox can
// recognise it.
func FromWatermill(w WatermillConfig, opts ...BusOption) (*Bus, error) {
	if w.Publisher == nil {
		return nil, errors.New("eventbus: FromWatermill: the publisher is nil; even who only subscribes needs one, for dead letters")
	}
	if c := w.Capabilities; c.Delay || c.DelayedRedelivery || c.Seek {
		return nil, fmt.Errorf("eventbus: FromWatermill: delayed delivery and seeking: %w", ErrUnsupported)
	}
	return New(&adapter{w: w}, opts...)
}

// adapter is the driver.Broker over Watermill's interfaces.
type adapter struct {
	w      WatermillConfig
	mu     sync.Mutex
	subs   []message.Subscriber
	closed bool
}

func (a *adapter) Capabilities() driver.Capabilities { return a.w.Capabilities }

func (a *adapter) Publish(topic string, messages ...*message.Message) error {
	if a.isClosed() {
		return fmt.Errorf("topic %q: %w", topic, ErrClosed)
	}
	return a.w.Publisher.Publish(topic, messages...)
}

func (a *adapter) Subscribe(_ context.Context, s driver.Subscription) (driver.Consumer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if a.isClosed() {
		return nil, fmt.Errorf("topic %q: %w", s.Topic, ErrClosed)
	}
	if a.w.Subscriber == nil {
		return nil, fmt.Errorf("topic %q: %w: no Watermill subscriber was given", s.Topic, ErrUnsupported)
	}
	sub, err := a.w.Subscriber(s.Group)
	if err != nil {
		return nil, fmt.Errorf("topic %q, group %q: %w", s.Topic, s.Group, err)
	}
	a.mu.Lock()
	a.subs = append(a.subs, sub)
	a.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := sub.Subscribe(ctx, s.Topic)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("topic %q, group %q: %w", s.Topic, s.Group, err)
	}
	return &adapterConsumer{sub: s, messages: messages, cancel: cancel}, nil
}

func (a *adapter) Close() error {
	a.mu.Lock()
	subs, closed := a.subs, a.closed
	a.subs, a.closed = nil, true
	a.mu.Unlock()
	if closed {
		return nil
	}
	var errs []error
	for _, s := range subs {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, a.w.Publisher.Close())...)
}

func (a *adapter) isClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}

type adapterConsumer struct {
	sub      driver.Subscription
	messages <-chan *message.Message
	cancel   context.CancelFunc // ends the Watermill subscription
}

// Run hands messages to the dispatcher until ctx ends. Watermill cancels the
// contexts of messages with the subscription, so that goes last, after the
// handlers.
func (c *adapterConsumer) Run(ctx context.Context) error {
	defer c.cancel()
	d := dispatch.New[*message.Message](dispatch.Config{Limit: c.sub.Concurrency})
	lane := d.Lane()
	work, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { d.Work(work, c.sub.Concurrency, c.handle) })
	defer wg.Wait()
	for n := int64(1); ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-c.messages:
			if !ok {
				stop()
				return fmt.Errorf("topic %q, group %q: the Watermill subscriber closed its channel: %w", c.sub.Topic, c.sub.Group, ErrClosed)
			}
			if lane.Add(ctx, driver.Key(m), n, 1, m) != nil {
				m.Nack()
			}
		}
	}
}

func (c *adapterConsumer) handle(it *dispatch.Item[*message.Message]) {
	m := it.Record
	if m.UUID == "" {
		m.UUID = NewID() // there is no position to name it by
	}
	res := c.sub.Handle(&driver.Delivery{
		Message: m,
		Topic:   c.sub.Topic,
		Key:     it.Key,
		Attempt: it.Attempt,
	})
	switch {
	case !res.Redeliver:
		m.Ack()
	case res.Delay > 0:
		it.Retry(res.Delay) // adapters redeliver a nack at once; holding it here spares the broker a hot loop
	default:
		m.Nack()
	}
}

// Subscriber returns a Watermill subscriber for a consumer group, for programs
// built on Watermill's Router. It hands out up to 16 messages at a time, of
// different keys; a nacked message comes back after 100 ms, ahead of its key.
// Close ends its subscriptions and waits for them; it does not close the Bus.
func (b *Bus) Subscriber(group string) message.Subscriber {
	ctx, cancel := context.WithCancel(context.Background())
	return &subscriber{bus: b, group: group, ctx: ctx, cancel: cancel}
}

const (
	subscriberConcurrency = 16
	subscriberNackDelay   = 100 * time.Millisecond
)

type subscriber struct {
	bus    *Bus
	group  string
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Subscribe implements message.Subscriber.
func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if s.ctx.Err() != nil {
		return nil, fmt.Errorf("eventbus: subscriber of group %q: %w", s.group, ErrClosed)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	out := make(chan *message.Message)
	consumer, err := s.bus.broker.Subscribe(ctx, driver.Subscription{
		Topic: topic, Group: s.group, Concurrency: subscriberConcurrency,
		Handle: func(d *driver.Delivery) driver.Result {
			if forOthers(d.Message.Metadata[MetadataRedrive], topic, s.group) {
				return driver.Result{}
			}
			return handOut(ctx, out, d)
		},
	})
	if err != nil {
		cancel()
		return nil, fmt.Errorf("eventbus: %w", err)
	}
	s.wg.Go(func() {
		defer close(out)
		defer stop()
		defer cancel()
		_ = consumer.Run(ctx) // ErrClosed: the closed channel says so
	})
	return out, nil
}

// handOut gives d's message to whoever reads out and waits for the verdict. The
// message's context ends with it, as Watermill wants.
func handOut(ctx context.Context, out chan<- *message.Message, d *driver.Delivery) driver.Result {
	again := driver.Result{Redeliver: true, Hold: true}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := message.NewMessageWithContext(ctx, d.Message.UUID, d.Message.Payload)
	m.Metadata = d.Message.Metadata
	delete(m.Metadata, MetadataRedrive)
	select {
	case out <- m:
	case <-ctx.Done():
		return again
	}
	select {
	case <-m.Acked():
		return driver.Result{}
	case <-m.Nacked():
		again.Delay = subscriberNackDelay
		return again
	case <-ctx.Done():
		return again
	}
}

// Close implements message.Subscriber.
func (s *subscriber) Close() error {
	s.cancel()
	s.wg.Wait()
	return nil
}
