package main

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
	wm "github.com/ThreeDotsLabs/watermill"
	wmkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	_ "github.com/millrace-go/millrace/eventbus/kafkabus" // kafka: URLs
)

const partitions = 8

// kafka compares on the cluster that raw names, or on an embedded one.
func kafka(raw string, n int) error {
	what := "Kafka"
	if raw == "kfake" {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			return err
		}
		defer cluster.Close()
		raw, what = "kafka://"+cluster.ListenAddrs()[0], "Kafka (kfake)"
	}
	u, err := url.Parse(raw)
	if err != nil {
		return err
	}
	brokers := strings.Split(u.Host, ",")
	admin, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err
	}
	defer admin.Close()
	var failed error
	topic := func() string {
		name := newName("kafka")
		_, err := kadm.NewClient(admin).CreateTopic(context.Background(), partitions, 1, nil, name)
		failed = err
		return name
	}
	ours, theirs := millrace(raw), watermillKafka(brokers)
	same := func(int) []byte { return payload }
	batch, each := franz(brokers, false, same), franz(brokers, true, same)
	differing := franz(brokers, true, func(i int) []byte { return distinct()[i%len(distinct())] })

	// One fetch brings more than 100,000 events that are alike; of a few fetches one
	// would measure what comes before and after them.
	const many, few, fetched = 40_000, 4_000, 1_000_000
	err = tables(n, []table{
		{what + ": publish in batches of 100", []variant{
			{"franz-go, ProduceSync of 100", publishing(each, topic, many, 100, 1)},
			{"franz-go, Produce without waiting, flush at the end", publishing(batch, topic, many, many, 1)},
			{ours.name, publishing(ours, topic, many, 100, 1)},
			{theirs.name, publishing(theirs, topic, few, 100, 1)},
		}},
		{what + ": publish one by one, 1 caller", []variant{
			{"franz-go, ProduceSync", publishing(each, topic, few, 1, 1)},
			{ours.name, publishing(ours, topic, few, 1, 1)},
			{theirs.name, publishing(theirs, topic, few, 1, 1)},
		}},
		{what + ": publish one by one, 64 callers", []variant{
			{"franz-go, ProduceSync", publishing(each, topic, many, 1, 64)},
			{ours.name, publishing(ours, topic, many, 1, 64)},
			{theirs.name, publishing(theirs, topic, many, 1, 64)},
		}},
		{what + ": consume in a group, handler does nothing", []variant{
			{"franz-go, mark each, commit each second", consuming(each, each, topic, fetched, 1, 0)},
			{ours.name, consuming(ours, each, topic, fetched, 16, 0)},
			{theirs.name, consuming(theirs, each, topic, many, 16, 0)},
		}},
		{what + ": consume in a group, handler does nothing, events differ", []variant{
			{"franz-go, mark each, commit each second", consuming(each, differing, topic, 5*many, 1, 0)},
			{ours.name, consuming(ours, differing, topic, 5*many, 16, 0)},
			{theirs.name, consuming(theirs, differing, topic, many, 16, 0)},
		}},
		{what + ": consume, handler takes 1 ms, 64 keys", []variant{
			{"franz-go, one at a time", consuming(each, each, topic, 500, 1, time.Millisecond)},
			{ours.name + ", Concurrency 64", consuming(ours, each, topic, 5*few, 64, time.Millisecond)},
			{theirs.name, consuming(theirs, each, topic, 500, 64, time.Millisecond)},
		}},
		{what + ": from publish to handler", []variant{
			{"franz-go", latency(each, topic, 300)},
			{ours.name, latency(ours, topic, 300)},
			{theirs.name, latency(theirs, topic, 300)},
		}},
	})
	if err == nil {
		err = failed
	}
	return err
}

// franz is what one would write by hand with the same promises: acks=all,
// idempotent, keyed, with an id, offsets committed after handling.
func franz(brokers []string, wait bool, payload func(i int) []byte) system {
	return system{
		publisher: func(topic string) (func([]string) error, func(), error) {
			c, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
			if err != nil {
				return nil, nil, err
			}
			return func(keys []string) error {
				records := make([]*kgo.Record, len(keys))
				for i, key := range keys {
					records[i] = &kgo.Record{Topic: topic, Key: []byte(key), Value: payload(i), Headers: []kgo.RecordHeader{
						{Key: "_watermill_message_uuid", Value: []byte(newID())},
						{Key: "ce_partitionkey", Value: []byte(key)},
					}}
				}
				if wait {
					return c.ProduceSync(context.Background(), records...).FirstErr()
				}
				for _, r := range records {
					c.Produce(context.Background(), r, nil)
				}
				return c.Flush(context.Background())
			}, c.Close, nil
		},
		consumer: func(topic, group string, _ int, handle func([]byte)) (func(), error) {
			c, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AutoCommitMarks(), kgo.AutoCommitInterval(time.Second))
			if err != nil {
				return nil, err
			}
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() {
				for ctx.Err() == nil {
					c.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
						handle(r.Value)
						c.MarkCommitRecords(r)
					})
				}
			})
			return func() { cancel(); running.Wait(); c.Close() }, nil
		},
	}
}

func watermillKafka(brokers []string) system {
	keyed := wmkafka.NewWithPartitioningMarshaler(func(_ string, m *message.Message) (string, error) {
		return m.Metadata["ce_partitionkey"], nil
	})
	return watermill("watermill-kafka, its defaults (leader acks)",
		func() (message.Publisher, error) {
			return wmkafka.NewPublisher(wmkafka.PublisherConfig{Brokers: brokers, Marshaler: keyed}, wm.NopLogger{})
		},
		func(group string) (message.Subscriber, error) {
			c := wmkafka.DefaultSaramaSubscriberConfig()
			c.Consumer.Offsets.Initial = sarama.OffsetOldest
			return wmkafka.NewSubscriber(wmkafka.SubscriberConfig{Brokers: brokers, ConsumerGroup: group, Unmarshaler: keyed, OverwriteSaramaConfig: c}, wm.NopLogger{})
		})
}
