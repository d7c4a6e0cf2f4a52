package main

import (
	"fmt"
	"hash/fnv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	wm "github.com/ThreeDotsLabs/watermill"
	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	_ "github.com/millrace-go/millrace/eventbus/amqpbus" // amqp: URLs
)

// rabbit compares on the RabbitMQ that url names.
func rabbit(url string, n int) error {
	ours, theirs := millrace(url), watermillRabbit("watermill-amqp with confirms, 64 channels, prefetch 256", url, 64)
	oursClassic, theirDefault := millrace(withParameter(url, "queue_type=classic")), watermillRabbit("watermill-amqp with confirms, a channel for each call (its default)", url, 0)
	quorum, classic, same := amqp091(url, "quorum"), amqp091(url, "classic"), amqp091OnExchange(url)
	var failed error
	// read returns names of topics with a queue: where there is none, nothing is
	// stored.
	read := func(s system) func() string {
		return func() string {
			name := newName("amqp")
			stop, err := s.consumer(name, name, 1, func([]byte) {})
			if err != nil {
				failed = err
				return name
			}
			stop()
			return name
		}
	}
	fresh := func() string { return newName("amqp") }
	const many, few = 10_000, 500
	err := tables(n, []table{
		{"RabbitMQ: publish in batches of 100, quorum queues", []variant{
			{"amqp091, deferred confirms of 100", publishing(quorum, read(quorum), many, 100, 1)},
			{"amqp091, deferred confirms of 100, millrace's exchanges and headers", publishing(same, read(ours), many, 100, 1)},
			{ours.name, publishing(ours, read(ours), many, 100, 1)},
		}},
		{"RabbitMQ: publish in batches of 100, durable classic queues", []variant{
			{"amqp091, deferred confirms of 100", publishing(classic, read(classic), many, 100, 1)},
			{ours.name, publishing(oursClassic, read(oursClassic), many, 100, 1)},
			{ours.name + ", quorum queues", publishing(ours, read(ours), many, 100, 1)},
			{theirs.name, publishing(theirs, read(theirs), few, 100, 1)},
			{theirDefault.name, publishing(theirDefault, read(theirDefault), few, 100, 1)},
			{theirDefault.name + ", an event each call", publishing(theirDefault, read(theirDefault), few, 1, 1)},
		}},
		{"RabbitMQ: publish one by one, 1 caller", []variant{
			{"amqp091, quorum queue", publishing(quorum, read(quorum), few, 1, 1)},
			{ours.name, publishing(ours, read(ours), few, 1, 1)},
			{theirs.name, publishing(theirs, read(theirs), few, 1, 1)},
		}},
		{"RabbitMQ: publish one by one, 64 callers", []variant{
			{"amqp091, one channel, quorum queue", publishing(quorum, read(quorum), many, 1, 64)},
			{ours.name, publishing(ours, read(ours), many, 1, 64)},
			{theirs.name, publishing(theirs, read(theirs), few*4, 1, 64)},
		}},
		{"RabbitMQ: consume, handler does nothing", []variant{
			{"amqp091, prefetch 256, ack 64 at once, quorum queue", consuming(quorum, quorum, fresh, 2*many, 1, 0)},
			{"amqp091, prefetch 256, ack 64 at once, classic queue", consuming(classic, classic, fresh, 2*many, 1, 0)},
			{ours.name, consuming(ours, ours, fresh, 2*many, 16, 0)},
			{theirs.name, consuming(theirs, theirs, fresh, many/2, 1, 0)},
		}},
		{"RabbitMQ: consume, handler takes 1 ms, 64 keys", []variant{
			{"amqp091, one at a time", consuming(quorum, quorum, fresh, few, 1, time.Millisecond)},
			{ours.name + ", Concurrency 64", consuming(ours, ours, fresh, many, 64, time.Millisecond)},
			{theirs.name, consuming(theirs, theirs, fresh, few, 64, time.Millisecond)},
		}},
		{"RabbitMQ: from publish to handler", []variant{
			{"amqp091, quorum queue", latency(quorum, fresh, 200)},
			{ours.name, latency(ours, fresh, 200)},
			{theirs.name, latency(theirs, fresh, 200)},
		}},
	})
	if err == nil {
		err = failed
	}
	return err
}

// amqp091 is what one would write by hand with the same promises: durable
// queue, persistent messages, confirms.
func amqp091(url, kind string) system {
	declare := func(ch *amqp.Channel, queue string) error {
		_, err := ch.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": kind})
		return err
	}
	open := func(queue string) (*amqp.Connection, *amqp.Channel, error) {
		conn, err := amqp.Dial(url)
		if err != nil {
			return nil, nil, err
		}
		ch, err := conn.Channel()
		if err != nil {
			return nil, nil, err
		}
		return conn, ch, declare(ch, queue)
	}
	return system{
		publisher: func(queue string) (func([]string) error, func(), error) {
			conn, ch, err := open(queue)
			if err != nil {
				return nil, nil, err
			}
			if err := ch.Confirm(false); err != nil {
				return nil, nil, err
			}
			return func(keys []string) error {
				return confirmed(ch, keys, func(string) (exchange, key string, m amqp.Publishing) {
					return "", queue, amqp.Publishing{Body: payload, DeliveryMode: amqp.Persistent}
				})
			}, func() { _ = conn.Close() }, nil
		},
		consumer: func(queue, _ string, _ int, handle func([]byte)) (func(), error) {
			conn, ch, err := open(queue)
			if err != nil {
				return nil, err
			}
			if err := ch.Qos(256, 0, false); err != nil {
				return nil, err
			}
			incoming, err := ch.Consume(queue, "", false, false, false, false, nil)
			if err != nil {
				return nil, err
			}
			var running sync.WaitGroup
			var stopping atomic.Bool
			running.Go(func() {
				n := 0
				for d := range incoming {
					handle(d.Body)
					if n++; n%64 == 0 && !stopping.Load() {
						_ = d.Ack(true)
					}
				}
			})
			return func() { stopping.Store(true); _ = conn.Close(); running.Wait() }, nil
		},
	}
}

// confirmed publishes one message per key and then waits for all confirms.
func confirmed(ch *amqp.Channel, keys []string, message func(key string) (exchange, routingKey string, m amqp.Publishing)) error {
	waiting := make([]*amqp.DeferredConfirmation, 0, len(keys))
	for _, key := range keys {
		exchange, routingKey, m := message(key)
		c, err := ch.PublishWithDeferredConfirm(exchange, routingKey, true, false, m)
		if err != nil {
			return err
		}
		waiting = append(waiting, c)
	}
	for _, c := range waiting {
		c.Wait()
	}
	return nil
}

// amqp091OnExchange publishes as Millrace does, to topics that it has set up: what
// groups, order and an id cost in the broker is in both.
func amqp091OnExchange(url string) system {
	return system{publisher: func(topic string) (func([]string) error, func(), error) {
		conn, err := amqp.Dial(url)
		if err != nil {
			return nil, nil, err
		}
		ch, err := conn.Channel()
		if err != nil {
			return nil, nil, err
		}
		if err := ch.Confirm(false); err != nil {
			return nil, nil, err
		}
		return func(keys []string) error {
			return confirmed(ch, keys, func(key string) (string, string, amqp.Publishing) {
				hash := fnv.New32a()
				hash.Write([]byte(key))
				id := newID()
				return topic, fmt.Sprintf("%02d", hash.Sum32()%32), amqp.Publishing{
					Body: payload, DeliveryMode: amqp.Persistent, MessageId: id,
					Headers: amqp.Table{"_watermill_message_uuid": id, "cloudEvents:partitionkey": key},
				}
			})
		}, func() { _ = conn.Close() }, nil
	}}
}

func watermillRabbit(name, url string, channels int) system {
	config := func(group string) wmamqp.Config {
		c := wmamqp.NewDurablePubSubConfig(url, wmamqp.GenerateQueueNameConstant("wm."+group))
		c.Publish.ConfirmDelivery = true
		c.Publish.ChannelPoolSize = channels
		c.Consume.Qos.PrefetchCount = 256
		return c
	}
	return watermill(name,
		func() (message.Publisher, error) { return wmamqp.NewPublisher(config("any"), wm.NopLogger{}) },
		func(group string) (message.Subscriber, error) {
			return wmamqp.NewSubscriber(config(group), wm.NopLogger{})
		})
}

func withParameter(url, parameter string) string {
	if strings.Contains(url, "?") {
		return url + "&" + parameter
	}
	return url + "?" + parameter
}
