package amqpbus

import (
	"context"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/millrace-go/millrace/eventbus/driver"
)

const (
	fanout = "fanout"
	direct = "direct"
)

// deliveryLimit is far above any count of redeliveries: RabbitMQ 4 drops after
// 20 by default, and earlier versions don't take -1.
const deliveryLimit = int64(1<<31 - 1)

// do runs f on a channel of its own, which a refusal closes.
func (s *session) do(f func(*amqp.Channel) error) error {
	ch, err := s.conn.Channel()
	if err != nil {
		return err
	}
	defer func() { _ = ch.Close() }() // f may have had it closed
	return f(ch)
}

func declareTopic(ch *amqp.Channel, topic string) error {
	return explainDeclare(fmt.Sprintf("exchange %q", topic), ch.ExchangeDeclare(topic, fanout, true, false, false, false, nil))
}

func declareExchange(ch *amqp.Channel, name, kind string) error {
	return explainDeclare(fmt.Sprintf("exchange %q", name), ch.ExchangeDeclare(name, kind, true, false, false, false, nil))
}

// hasExchange reports whether an exchange exists.
func (s *session) hasExchange(name string) (bool, error) {
	return exists(s.do(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(name, fanout, true, false, false, false, nil)
	}))
}

func (s *session) hasQueue(name string) (q amqp.Queue, ok bool, err error) {
	ok, err = exists(s.do(func(ch *amqp.Channel) (err error) {
		q, err = ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	}))
	return q, ok, err
}

func exists(err error) (bool, error) {
	if isCode(err, amqp.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// checkGroup reports what of a group is missing.
func (s *session) checkGroup(n groupNames) error {
	for _, x := range []struct{ kind, name, call string }{
		{"topic", n.topic, fmt.Sprintf("ctx, %q, %q", n.topic, n.group)},
		{"the exchange of the group,", n.base, fmt.Sprintf("ctx, %q, %q", n.topic, n.group)},
	} {
		if ok, err := s.hasExchange(x.name); err != nil {
			return explainDeclare(fmt.Sprintf("exchange %q", x.name), err)
		} else if !ok {
			return notProvisioned(x.kind, x.name, x.call)
		}
	}
	if err := s.checkMade(n); err != nil {
		return err
	}
	for _, queue := range n.queues {
		if _, ok, err := s.hasQueue(queue); err != nil {
			return explainDeclare(fmt.Sprintf("queue %q", queue), err)
		} else if !ok {
			return notProvisioned("queue", queue, fmt.Sprintf("ctx, %q, %q", n.topic, n.group))
		}
	}
	return nil
}

// checkMade reports whether a group that exists has other queues than these.
func (s *session) checkMade(n groupNames) error {
	for _, alternate := range append([]string{n.alternate}, alternatesOf(n.base)...) {
		switch ok, err := s.hasExchange(alternate); {
		case err != nil:
			return explainDeclare(fmt.Sprintf("exchange %q", alternate), err)
		case ok && alternate == n.alternate:
			return nil
		case ok:
			return n.madeOtherwise(alternate)
		}
	}
	return notProvisioned("the exchange of the group for other routing keys,", n.alternate, fmt.Sprintf("ctx, %q, %q", n.topic, n.group))
}

// createGroup makes all that a group needs, and hands it what nobody has claimed
// yet if it is the first. Only then publishers reach it, so that what was
// published before comes first.
func (b *Broker) createGroup(ctx context.Context, s *session, n groupNames, start driver.Start) error {
	select {
	case b.creating <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("this client is creating another group: %w", context.Cause(ctx))
	}
	defer func() { <-b.creating }()
	if err := s.lock(ctx, n.topic); err != nil {
		return err
	}
	defer s.unlock(n.topic)
	if err := s.do(func(ch *amqp.Channel) error { return declareTopic(ch, n.topic) }); err != nil {
		return err
	}
	if err := s.settleStart(n, start); err != nil {
		return err
	}
	if err := s.declareGroup(n, b.cfg.QueueType); err != nil {
		return err
	}
	claims, err := s.hasExchange(n.oldest)
	if err != nil {
		return err
	}
	if claims {
		if err := b.claim(ctx, s, n); err != nil {
			return err
		}
	}
	if err := s.do(func(ch *amqp.Channel) error { return ch.ExchangeBind(n.base, "", n.topic, false, nil) }); err != nil {
		return fmt.Errorf("bind exchange %q to %q: %w", n.base, n.topic, err)
	}
	if claims {
		return b.claim(ctx, s, n) // what was on its way while the group was not bound
	}
	return nil
}

// settleStart stores where a group begins, unless it exists.
func (s *session) settleStart(n groupNames, start driver.Start) error {
	known, err := s.hasExchange(n.base)
	if err != nil || known {
		return err
	}
	return s.do(func(ch *amqp.Channel) error {
		if start == driver.StartOldest {
			return declareExchange(ch, n.oldest, fanout)
		}
		return ch.ExchangeDelete(n.oldest, false, false)
	})
}

// declareGroup declares all of the group but the binding to its topic.
func (s *session) declareGroup(n groupNames, queueType string) error {
	known, err := s.hasQueues(n.queues)
	if err != nil {
		return err
	}
	err = s.do(func(ch *amqp.Channel) error {
		alternate := amqp.Table{"alternate-exchange": n.alternate}
		if err := ch.ExchangeDeclare(n.base, direct, true, false, false, false, alternate); err != nil {
			return n.explainGroup(err)
		}
		for _, name := range []string{n.alternate, n.members} {
			if err := declareExchange(ch, name, fanout); err != nil {
				return err
			}
		}
		for _, queue := range n.queues {
			if err := declareQueue(ch, queue, queueType, amqp.Table{"x-single-active-consumer": true}); err != nil {
				return err
			}
		}
		for slot, key := range slotNames {
			if err := ch.QueueBind(n.queues[slot%len(n.queues)], key, n.base, true, nil); err != nil {
				return err
			}
		}
		return ch.QueueBind(n.queues[0], "", n.alternate, false, nil) // waits for those before it
	})
	if err != nil || known || queueType != QuorumQueue {
		return err
	}
	return s.do(func(ch *amqp.Channel) error { return saveQuorum(ch, n.base) })
}

// hasQueues reports whether all of them exist.
func (s *session) hasQueues(names []string) (bool, error) {
	for _, name := range names {
		if _, ok, err := s.hasQueue(name); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// saveQuorum makes RabbitMQ write down that a quorum queue exists. Its register
// of them (the names.dets of Ra) keeps the newest entry in memory, for up to a
// second or until the register is used again; a broker that is alone and killed
// before that comes back with the queue, but without an event in it.
func saveQuorum(ch *amqp.Channel, base string) error {
	name := newName(base)
	if _, err := ch.QueueDelete(name, false, false, false); err != nil { // of a client that was killed here
		return err
	}
	if err := declareQueue(ch, name, QuorumQueue, amqp.Table{}); err != nil {
		return err
	}
	_, err := ch.QueueDelete(name, false, false, false)
	return err
}

func declareQueue(ch *amqp.Channel, name, queueType string, args amqp.Table) error {
	args["x-queue-type"] = queueType
	if queueType == QuorumQueue {
		args["x-delivery-limit"] = deliveryLimit
	}
	_, err := ch.QueueDeclare(name, true, false, false, false, args)
	return explainDeclare(fmt.Sprintf("queue %q", name), err)
}

const lockPoll = 25 * time.Millisecond

// lock makes this client the only one that creates groups of a topic. RabbitMQ
// gives the lock back when the connection ends.
func (s *session) lock(ctx context.Context, topic string) error {
	for {
		err := s.tryLock(topic)
		if err == nil {
			return nil
		}
		if !isCode(err, amqp.ResourceLocked) {
			return explainDeclare(fmt.Sprintf("queue %q", lockName(topic)), err)
		}
		if !wait(ctx, lockPoll) {
			return fmt.Errorf("another client is creating a group of the topic: %w", context.Cause(ctx))
		}
	}
}

func (s *session) tryLock(topic string) error {
	return s.do(func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(lockName(topic), false, true, true, false, nil)
		return err
	})
}

// unlock needs no answer to its caller: the lock ends with the connection.
func (s *session) unlock(topic string) {
	_ = s.do(func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(lockName(topic), false, false, false)
		return err
	})
}
