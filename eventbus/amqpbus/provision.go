package amqpbus

import (
	"context"
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Provision creates a topic and groups of it, whatever Config.NoProvision says,
// for clients that run without the permission to. Groups that exist stay as they
// are; new ones begin with the oldest event kept. It also creates the queue that
// keeps the events of a topic without any group.
func (b *Broker) Provision(ctx context.Context, topic string, groups ...string) error {
	if err := checkTopic(topic); err != nil {
		return err
	}
	for _, group := range groups {
		if err := driver.CheckGroup(group); err != nil {
			return err
		}
	}
	err := b.call(ctx, func(ctx context.Context, s *session) error {
		if err := s.do(func(ch *amqp.Channel) error { return declareTopic(ch, topic) }); err != nil {
			return err
		}
		if err := s.declareUnclaimed(topic, b.cfg.QueueType); err != nil {
			return err
		}
		for _, group := range groups {
			if err := b.createGroup(ctx, s, namesOf(topic, group, b.cfg.Queues, b.cfg.QueueType), driver.StartOldest); err != nil {
				return fmt.Errorf("group %q: %w", group, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("amqpbus: provision topic %q: %w", topic, err)
	}
	return nil
}

// RemoveGroup deletes a group of a topic with its queues and the events in them.
// It fails with driver.ErrBusy while the group has running members, and does
// nothing for a group that does not exist.
func (b *Broker) RemoveGroup(ctx context.Context, topic, group string) error {
	if err := checkTopic(topic); err != nil {
		return err
	}
	if err := driver.CheckGroup(group); err != nil {
		return err
	}
	n := namesOf(topic, group, slots, b.cfg.QueueType)
	if err := b.call(ctx, func(_ context.Context, s *session) error { return s.removeGroup(n) }); err != nil {
		return fmt.Errorf("amqpbus: remove group %q of topic %q: %w", group, topic, err)
	}
	return nil
}

func (s *session) removeGroup(n groupNames) error {
	for _, queue := range n.queues { // the group may have fewer
		q, ok, err := s.hasQueue(queue)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if q.Consumers > 0 {
			return fmt.Errorf("queue %q: %w", queue, driver.ErrBusy)
		}
	}
	return s.do(func(ch *amqp.Channel) error {
		exchanges := append([]string{n.base, n.members}, alternatesOf(n.base)...)
		exchanges = append(exchanges, n.oldest) // last: it says how the group began
		for _, exchange := range exchanges {
			if err := ch.ExchangeDelete(exchange, false, false); err != nil {
				return err
			}
		}
		for _, queue := range append(n.queues, newName(n.base)) {
			if _, err := ch.QueueDelete(queue, false, false, false); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveTopic deletes a topic and the events of it that no group has claimed. Its
// groups must have been removed before.
func (b *Broker) RemoveTopic(ctx context.Context, topic string) error {
	if err := checkTopic(topic); err != nil {
		return err
	}
	err := b.call(ctx, func(_ context.Context, s *session) error {
		return s.do(func(ch *amqp.Channel) error {
			if err := ch.ExchangeDelete(topic, false, false); err != nil {
				return err
			}
			for _, queue := range []string{unclaimed(topic), newName(unclaimed(topic))} {
				if _, err := ch.QueueDelete(queue, false, false, false); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("amqpbus: remove topic %q: %w", topic, err)
	}
	return nil
}
