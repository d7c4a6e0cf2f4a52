package amqpbus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// call is one Publish that waits.
type call struct {
	abandoned atomic.Bool // nobody waits any more
	done      chan struct{}

	// Guarded by pipe.mu.
	open int // events without an outcome
	errs []error
}

// outgoing is one event on its way to the broker.
type outgoing struct {
	call  *call
	index int    // in the call
	order uint64 // in the pipe
	slot  string
	event amqp.Publishing

	unclaimed bool // the broker had nowhere to put it
}

// Marks of events without an outcome.
var (
	errUnsent  = errors.New("it was not sent")
	errUnknown = errors.New("whether it was published is unknown")
)

// Publish implements driver.Broker. If the connection is lost, what was not
// confirmed is published again when it is back.
func (b *Broker) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	if err := checkTopic(topic); err != nil {
		return err
	}
	ctx := messages[0].Context()
	if ctx.Err() != nil {
		return fmt.Errorf("amqpbus: topic %q: event %s was not published: %w", topic, messages[0].UUID, context.Cause(ctx))
	}
	events, err := b.encodeAll(topic, messages)
	if err != nil {
		return err
	}
	c := &call{done: make(chan struct{}), open: len(events), errs: make([]error, len(events))}
	for i := range events {
		events[i].call, events[i].index = c, i
		c.errs[i] = errUnsent
	}
	p, err := b.send(topic, events)
	if err != nil {
		return fmt.Errorf("amqpbus: topic %q: %w", topic, err)
	}
	err = b.await(ctx, p, c)
	return p.outcome(c, messages, err)
}

// await returns nil when every event of c has its outcome.
func (b *Broker) await(ctx context.Context, p *pipe, c *call) error {
	timeout := time.NewTimer(b.cfg.PublishTimeout)
	defer timeout.Stop()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return withReason(context.Cause(ctx), p.reason())
	case <-timeout.C:
		return withReason(fmt.Errorf("%w: not confirmed within %v", context.DeadlineExceeded, b.cfg.PublishTimeout), p.reason())
	case <-b.open.Done():
		return driver.ErrClosed
	}
}

// outcome makes the error of a Publish; cause is why its caller waits no longer.
func (p *pipe) outcome(c *call, messages []*message.Message, cause error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.abandon(c)
	failed := 0
	for i, err := range c.errs {
		if err != nil {
			failed++
			c.errs[i] = fmt.Errorf("amqpbus: topic %q: event %s %w", p.topic, messages[i].UUID, fate(err, cause))
		}
	}
	switch {
	case failed == 0:
		return nil
	case len(messages) == 1:
		return c.errs[0]
	}
	return &driver.BatchError{Topic: p.topic, Errs: c.errs}
}

// fate says what became of an event; cause is why it has no outcome.
func fate(err, cause error) error {
	switch {
	case errors.Is(err, errUnsent):
		return fmt.Errorf("was not published: %w", cause)
	case errors.Is(err, errUnknown):
		return fmt.Errorf("may or may not have been published: %w", cause)
	}
	return fmt.Errorf("was not published: %w", err)
}

// encodeAll refuses a batch of which any message can't be taken. Payloads are
// copied: after its context has ended, Publish returns while one may be written.
func (b *Broker) encodeAll(topic string, messages []*message.Message) ([]outgoing, error) {
	can := b.Capabilities()
	err := driver.CheckBatch(topic, messages, func(m *message.Message) error { return driver.CheckMessage(topic, m, can) })
	if err != nil {
		return nil, err
	}
	total := 0
	for _, m := range messages {
		total += len(m.Payload)
	}
	events, buffer := make([]outgoing, 0, len(messages)), make([]byte, 0, total)
	err = driver.CheckBatch(topic, messages, func(m *message.Message) error {
		from := len(buffer)
		buffer = append(buffer, m.Payload...)
		event, err := encode(m, buffer[from:len(buffer):len(buffer)])
		if err != nil {
			return fmt.Errorf("topic %q: %w", topic, err)
		}
		events = append(events, outgoing{event: event, slot: slotFor(m)})
		return nil
	})
	return events, err
}

// slotFor returns the routing key of m; events without a key go anywhere.
func slotFor(m *message.Message) string {
	if key := driver.Key(m); key != "" {
		return slotNames[slotOf(key)]
	}
	return slotNames[rand.N(slots)]
}
