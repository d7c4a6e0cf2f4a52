package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Publish implements driver.Broker. The messages of one call are sent together
// and waited for together. While the brokers can't be reached it waits, until the
// context of the first message ends or Config.PublishTimeout is over.
func (b *Broker) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	if err := b.publish(topic, messages); err != nil {
		return fmt.Errorf("kafkabus: publish to topic %q: %w", topic, err)
	}
	return nil
}

func (b *Broker) publish(name string, messages []*message.Message) error {
	if err := driver.CheckTopic(name); err != nil {
		return err
	}
	can := b.Capabilities()
	check := func(m *message.Message) error { return driver.CheckMessage(name, m, can) }
	if err := driver.CheckBatch(name, messages, check); err != nil {
		return err
	}
	if err := b.enter(); err != nil {
		return err
	}
	defer b.calls.Done()
	ctx, cancel := context.WithTimeoutCause(messages[0].Context(), b.cfg.PublishTimeout, errPublishTimeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return notPublished(messages, context.Cause(ctx))
	}
	err := b.reachable(ctx)
	if err == nil {
		err = b.ready(ctx, name)
	}
	if err != nil {
		return notPublished(messages, b.translate(ctx, err))
	}
	c := newCall(ctx, name, messages)
	for {
		client := b.current()
		c.send(ctx, client)
		select {
		case <-c.finished:
		case <-ctx.Done():
			return b.report(c.abandon(b.late(context.Cause(ctx))), name, messages)
		case <-b.open.Done():
			return b.report(c.abandon(driver.ErrClosed), name, messages)
		}
		failures := c.failures()
		if failures == nil {
			c.release()
			return nil
		}
		if again := b.mend(ctx, client, name, failures); !again {
			return b.report(failures, name, messages)
		}
	}
}

// errPublishTimeout ends a Publish whose message has no earlier deadline.
var errPublishTimeout = errors.New("no broker has taken it in time (publish_timeout)")

// late adds what is known about the reason to an error about time.
func (b *Broker) late(err error) error {
	if is(err, errPublishTimeout, errPersistTimeout, context.DeadlineExceeded) {
		return b.conn.late(err)
	}
	return err
}

func notPublished(messages []*message.Message, err error) error {
	return fmt.Errorf("event %s was not published: %w", messages[0].UUID, err)
}

// report turns the outcome of each message into what Publish returns.
func (b *Broker) report(outcomes []error, topic string, messages []*message.Message) error {
	failed := false
	for i, err := range outcomes {
		if err != nil {
			failed = true
			outcomes[i] = b.failure(messages[i], err)
		}
	}
	switch {
	case !failed:
		return nil
	case len(messages) == 1:
		return outcomes[0]
	}
	return &driver.BatchError{Topic: topic, Errs: outcomes}
}

func (b *Broker) failure(m *message.Message, err error) error {
	switch {
	case is(err, kerr.MessageTooLarge, kerr.RecordListTooLarge):
		return driver.Permanent(fmt.Errorf("event %s: %w: payload of %d bytes and metadata are over the topic's max.message.bytes: %w", m.UUID, driver.ErrTooLarge, len(m.Payload), err))
	case errors.Is(err, kgo.ErrClientClosed) && b.open.Err() != nil:
		err = driver.ErrClosed
	}
	if errors.Is(err, errUnknown) {
		return fmt.Errorf("event %s: %w", m.UUID, explain(err))
	}
	return fmt.Errorf("event %s was not published: %w", m.UUID, explain(err))
}

// mendPause keeps what fails at once from being tried without a pause.
const mendPause = 50 * time.Millisecond

// mend does what can be done about failures and reports whether to try again.
func (b *Broker) mend(ctx context.Context, client *kgo.Client, name string, failures []error) (again bool) {
	forgotten, replaced := false, false // once for all of the batch
	for i, err := range failures {
		switch {
		case err == nil:
		case b.open.Err() != nil || ctx.Err() != nil:
			return false
		case is(err, kerr.MessageTooLarge, kerr.RecordListTooLarge):
			return false
		case is(err, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID):
			if forgotten {
				continue
			}
			forgotten = true
			b.forget(name) // it was deleted, perhaps to be created anew, which the client won't believe
			client.PurgeTopicsFromProducing(name)
			if err := b.ready(ctx, name); err != nil {
				failures[i] = b.translate(ctx, err)
				return false
			}
		case is(err, kerr.InvalidProducerEpoch, kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.InvalidProducerIDMapping, kerr.ProducerFenced):
			if !replaced {
				replaced = true
				b.replace(client)
			}
		case errors.Is(err, kerr.ClusterAuthorizationFailed):
			b.replace(client) // the client would remember that for ever
			return false
		case isAnswer(err):
			return false
		}
	}
	select {
	case <-time.After(mendPause):
	case <-ctx.Done():
	case <-b.open.Done():
	}
	return true
}
