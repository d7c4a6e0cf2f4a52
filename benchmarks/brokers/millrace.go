package main

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// millrace is our driver for a URL.
func millrace(url string) system {
	open := func() (driver.Broker, error) {
		return driver.Open(context.Background(), url, driver.Options{Logger: slog.New(slog.DiscardHandler)})
	}
	return system{
		name: "**millrace**",
		publisher: func(topic string) (func([]string) error, func(), error) {
			b, err := open()
			if err != nil {
				return nil, nil, err
			}
			return func(keys []string) error {
				return b.Publish(topic, messages(keys)...)
			}, func() { _ = b.Close() }, nil
		},
		consumer: func(topic, group string, concurrency int, handle func([]byte)) (func(), error) {
			b, err := open()
			if err != nil {
				return nil, err
			}
			c, err := b.Subscribe(context.Background(), driver.Subscription{Topic: topic, Group: group, Concurrency: concurrency, Handle: func(d *driver.Delivery) driver.Result {
				handle(d.Message.Payload)
				return driver.Result{}
			}})
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { _ = c.Run(ctx) })
			return func() { cancel(); running.Wait(); _ = b.Close() }, nil
		},
	}
}

var lastID atomic.Int64

func newID() string { return strconv.FormatInt(lastID.Add(1), 10) }

// messages makes one event of 1 KiB for each key.
func messages(keys []string) []*message.Message {
	all := make([]*message.Message, len(keys))
	for i, key := range keys {
		all[i] = message.NewMessage(newID(), payload)
		all[i].Metadata[driver.MetadataKey] = key
	}
	return all
}

// watermill is an adapter of Watermill's; each topic or group has its own.
func watermill(name string, publisher func() (message.Publisher, error), subscriber func(group string) (message.Subscriber, error)) system {
	return system{
		name: name,
		publisher: func(topic string) (func([]string) error, func(), error) {
			p, err := publisher()
			if err != nil {
				return nil, nil, err
			}
			return func(keys []string) error {
				return p.Publish(topic, messages(keys)...)
			}, func() { _ = p.Close() }, nil
		},
		consumer: func(topic, group string, _ int, handle func([]byte)) (func(), error) {
			s, err := subscriber(group)
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithCancel(context.Background())
			incoming, err := s.Subscribe(ctx, topic)
			if err != nil {
				cancel()
				return nil, err
			}
			var running sync.WaitGroup
			running.Go(func() {
				for m := range incoming {
					handle(m.Payload)
					m.Ack()
				}
			})
			return func() { cancel(); _ = s.Close(); running.Wait() }, nil
		},
	}
}
