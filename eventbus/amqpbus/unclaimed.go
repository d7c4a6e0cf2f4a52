package amqpbus

import (
	"context"
	"fmt"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// declareUnclaimed makes the queue for events that no group is there for. One
// that exists is used whatever its type.
func (s *session) declareUnclaimed(topic, queueType string) error {
	if _, ok, err := s.hasQueue(unclaimed(topic)); ok || err != nil {
		return err
	}
	return s.do(func(ch *amqp.Channel) error {
		err := declareQueue(ch, unclaimed(topic), queueType, amqp.Table{})
		if err == nil && queueType == QuorumQueue {
			err = saveQuorum(ch, unclaimed(topic))
		}
		return err
	})
}

// expiration of an event in the unclaimed queue.
func (c *Config) expiration() string { return strconv.FormatInt(c.Retention.Milliseconds(), 10) }

// claimBatch is how many events are moved between two waits for confirms.
const claimBatch = 256

// claim moves the events that nobody has claimed to the group. The caller holds
// the topic's lock. What it is interrupted in is done again, so events may come
// twice.
func (b *Broker) claim(ctx context.Context, s *session, n groupNames) error {
	q, ok, err := s.hasQueue(unclaimed(n.topic))
	if err != nil || !ok || q.Messages == 0 {
		return err
	}
	if err := b.claimAll(ctx, s, n); err != nil {
		return fmt.Errorf("take over the events in queue %q: %w", unclaimed(n.topic), err)
	}
	return nil
}

func (b *Broker) claimAll(ctx context.Context, s *session, n groupNames) error {
	out, err := b.speaking.get(ctx)
	if err != nil {
		return err
	}
	return out.confirming(func(to *amqp.Channel) error {
		return s.do(func(from *amqp.Channel) error {
			for {
				more, err := b.claimSome(ctx, out, from, to, n)
				if err != nil || !more {
					return err
				}
			}
		})
	})
}

// confirming is do with confirms, on a connection that may be ended if the broker
// does not answer.
func (s *session) confirming(f func(*amqp.Channel) error) error {
	callOff := s.guard()
	ch, err := s.conn.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	callOff()
	if err != nil {
		return err
	}
	defer func() {
		defer s.guard()()
		_ = ch.Close() // the broker may have
	}()
	return f(ch)
}

func (b *Broker) claimSome(ctx context.Context, out *session, from, to *amqp.Channel, n groupNames) (more bool, err error) {
	defer out.guardFor(b.cfg.PublishTimeout)() // while the broker takes no publishes
	var last uint64
	confirms := make([]*amqp.DeferredConfirmation, 0, claimBatch)
	for len(confirms) < claimBatch {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		d, ok, err := from.Get(unclaimed(n.topic), false)
		if err != nil {
			return false, err
		}
		if !ok {
			break
		}
		c, err := to.PublishWithDeferredConfirm(n.base, claimedKey(&d), false, false, again(&d))
		if err != nil {
			return false, err
		}
		last, confirms = d.DeliveryTag, append(confirms, c)
	}
	if len(confirms) == 0 {
		return false, nil
	}
	for _, c := range confirms {
		switch acked, err := c.WaitContext(ctx); {
		case err != nil:
			return false, context.Cause(ctx)
		case !acked:
			return false, errRefused
		}
	}
	return true, from.Ack(last, true)
}

// claimedKey returns the routing key of an event that was parked; the one it
// was published with is lost.
func claimedKey(d *amqp.Delivery) string {
	for _, name := range []string{headerOf(driver.MetadataKey), headerAttributeOldest + driver.MetadataKey[len(attributePrefix):]} {
		if key, _ := textOf(d.Headers[name]); key != "" {
			return slotNames[slotOf(key)]
		}
	}
	return slotNames[d.DeliveryTag%slots]
}

// again makes a publishing of a delivery, without its time to live.
func again(d *amqp.Delivery) amqp.Publishing {
	return amqp.Publishing{
		Headers: d.Headers, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
		DeliveryMode: amqp.Persistent, Priority: d.Priority, CorrelationId: d.CorrelationId, ReplyTo: d.ReplyTo,
		MessageId: d.MessageId, Timestamp: d.Timestamp, Type: d.Type, AppId: d.AppId, Body: d.Body,
	}
}

// A group looks after firstClaim, and then less and less often, for events that
// came into the unclaimed queue while it was created. RabbitMQ logs each look as
// an error if there is no such queue.
const firstClaim, maxClaim = 2 * time.Second, 10 * time.Minute

// claimLate is claim for a running group; it gives way to whoever is at it.
func (b *Broker) claimLate(ctx context.Context, s *session, n groupNames) error {
	q, ok, err := s.hasQueue(unclaimed(n.topic))
	if err != nil || !ok || q.Messages == 0 {
		return err
	}
	claims, err := s.hasExchange(n.oldest)
	if err != nil || !claims {
		return err
	}
	select {
	case b.creating <- struct{}{}:
	default:
		return nil
	}
	defer func() { <-b.creating }()
	if err := s.tryLock(n.topic); err != nil {
		if isCode(err, amqp.ResourceLocked) {
			return nil
		}
		return err
	}
	defer s.unlock(n.topic)
	return b.claim(ctx, s, n)
}
