package watermillresilience

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/resilience"
)

// PublisherConfig configures a PublisherDecorator. The zero value is safe.
type PublisherConfig struct {
	// Batch has all messages of a Publish go through the policy together, in the
	// context of the first: a retry publishes all of them again.
	Batch bool
	// MaxPause is how long a message is held after the policy has turned it away for
	// the first time; then the error is returned, which a Router answers with a
	// redelivery at once, so that the handler is called again. Handlers of requests,
	// who would rather know, set it negative: not at all. Defaults to 10 s.
	MaxPause time.Duration
}

const defaultPublishPause = 10 * time.Second

// PublishError is the error of a Publish of several messages of which one could
// not be published. Those behind it were not tried.
type PublishError struct {
	Topic     string
	Messages  int // of the Publish
	Published int // those before the one that failed
	Err       error
}

// Error names the topic, the message and the reason.
func (e *PublishError) Error() string {
	return fmt.Sprintf("watermillresilience: topic %q: %d of %d messages were published: %v", e.Topic, e.Published, e.Messages, e.Err)
}

// Unwrap returns why the message was not published.
func (e *PublishError) Unwrap() error { return e.Err }

// Rejected reports whether nothing was done: the policy turned the first message
// away.
func (e *PublishError) Rejected() bool { return e.Published == 0 && resilience.IsRejected(e.Err) }

// PublisherDecorator returns a decorator of publishers that publish through p, in
// the contexts of the messages. It returns an error if p is nil or has a Hedge.
//
// Closing the decorated publisher closes the publisher, once.
func PublisherDecorator(p resilience.Policy, cfg PublisherConfig) message.PublisherDecorator {
	if cfg.MaxPause == 0 {
		cfg.MaxPause = defaultPublishPause
	}
	return func(next message.Publisher) (message.Publisher, error) {
		if err := suits(p); err != nil {
			return nil, err
		}
		return &publisher{next: next, policy: p, cfg: cfg, closing: sync.OnceValue(next.Close)}, nil
	}
}

type publisher struct {
	next    message.Publisher
	policy  resilience.Policy
	cfg     PublisherConfig
	closing func() error
}

// Close closes the publisher. Further calls return what the first did.
func (p *publisher) Close() error { return p.closing() }

// Publish publishes messages one after the other, or as a batch.
func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	switch {
	case len(messages) == 0:
		return p.next.Publish(topic)
	case len(messages) == 1 || p.cfg.Batch:
		return p.through(topic, messages)
	}
	for i := range messages {
		if err := p.through(topic, messages[i:i+1]); err != nil {
			return &PublishError{Topic: topic, Messages: len(messages), Published: i, Err: err}
		}
	}
	return nil
}

// through publishes messages by one call of the policy, or more after pauses.
func (p *publisher) through(topic string, messages []*message.Message) error {
	ctx := messages[0].Context()
	err := p.publish(ctx, topic, messages)
	for w := (pausing{most: p.cfg.MaxPause}); turnedAway(err) && w.wait(ctx, err); {
		err = p.publish(ctx, topic, messages)
	}
	return err
}

func (p *publisher) publish(ctx context.Context, topic string, messages []*message.Message) error {
	return p.policy.Do(ctx, func(ctx context.Context) error {
		defer within(ctx, messages)()
		return p.next.Publish(topic, messages...)
	})
}

// within puts the context of an attempt into messages, the first of which it
// comes from; the others keep their values. The function it returns undoes that.
func within(ctx context.Context, messages []*message.Message) (restore func()) {
	if len(messages) == 1 {
		m, original := messages[0], messages[0].Context()
		m.SetContext(ctx)
		return func() { m.SetContext(original) }
	}
	originals := make([]context.Context, len(messages))
	for i, m := range messages {
		originals[i] = m.Context()
		m.SetContext(join(ctx, originals[i]))
	}
	messages[0].SetContext(ctx)
	return func() {
		for i, m := range messages {
			m.SetContext(originals[i])
		}
	}
}
