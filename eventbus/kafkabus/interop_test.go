package kafkabus

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	wk "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	cekafka "github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2"
	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func saramaConfig() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.V2_8_0_0
	c.Producer.Return.Successes = true
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	return c
}

func envelope(id, key string) *message.Message {
	m := message.NewMessage(id, []byte(`{"total":7}`))
	for name, value := range map[string]string{
		"ce_specversion": "1.0", "ce_id": id, "ce_source": "/shop", "ce_type": "order.placed",
		"ce_partitionkey": key, "ce_time": "2026-11-21T01:02:03Z", "content-type": "application/json",
	} {
		m.Metadata[name] = value
	}
	return m
}

func TestWatermillPublishesToUs(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(3, "t"))
	p, err := wk.NewPublisher(wk.PublisherConfig{Brokers: k.ListenAddrs(), Marshaler: wk.DefaultMarshaler{}, OverwriteSaramaConfig: saramaConfig()}, watermill.NopLogger{})
	require.NoError(t, err)
	defer p.Close()
	sent := message.NewMessage("from-watermill", []byte("hello"))
	sent.Metadata.Set("correlation_id", "c-1")
	require.NoError(t, p.Publish("t", sent))

	got := make(chan *driver.Delivery, 1)
	start(t, dial(t, k, Config{}), driver.Subscription{Handle: into(got)})
	d := receive(t, got)
	require.Equal(t, "from-watermill", d.Message.UUID)
	require.Equal(t, message.Metadata{"correlation_id": "c-1"}, d.Message.Metadata)
	require.Equal(t, "hello", text(d))
	require.Empty(t, d.Key)
}

func TestWatermillSubscribesToUs(t *testing.T) {
	k := cluster(t)
	b := dial(t, k, Config{})
	require.NoError(t, b.Publish("t", envelope("from-us", "order-1")))
	s, err := wk.NewSubscriber(wk.SubscriberConfig{Brokers: k.ListenAddrs(), Unmarshaler: wk.DefaultMarshaler{}, ConsumerGroup: "watermill", OverwriteSaramaConfig: saramaConfig()}, watermill.NopLogger{})
	require.NoError(t, err)
	defer s.Close()
	messages, err := s.Subscribe(t.Context(), "t")
	require.NoError(t, err)
	m := receive(t, messages)
	m.Ack()
	require.Equal(t, "from-us", m.UUID)
	require.JSONEq(t, `{"total":7}`, string(m.Payload))
	require.Equal(t, "order.placed", m.Metadata["ce_type"])
	key, ok := wk.MessageKeyFromCtx(m.Context())
	require.True(t, ok)
	require.Equal(t, "order-1", string(key))
}

func TestCloudEventsSDKReadsOurs(t *testing.T) {
	k := cluster(t)
	b := dial(t, k, Config{Partitions: 1})
	require.NoError(t, b.Publish("t", envelope("e-1", "order-1")))
	consumer, err := sarama.NewConsumer(k.ListenAddrs(), saramaConfig())
	require.NoError(t, err)
	defer consumer.Close()
	partition, err := consumer.ConsumePartition("t", 0, sarama.OffsetOldest)
	require.NoError(t, err)
	defer partition.Close()
	raw := receive(t, partition.Messages())
	e, err := binding.ToEvent(t.Context(), cekafka.NewMessageFromConsumerMessage(raw))
	require.NoError(t, err)
	require.NoError(t, e.Validate())
	require.Equal(t, "e-1", e.ID())
	require.Equal(t, "/shop", e.Source())
	require.Equal(t, "order.placed", e.Type())
	require.Equal(t, "application/json", e.DataContentType())
	require.Equal(t, "order-1", e.Extensions()["partitionkey"])
	require.Equal(t, "order-1", string(raw.Key))
	require.JSONEq(t, `{"total":7}`, string(e.Data()))
}

func TestCloudEventsSDKWritesToUs(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(3, "t"))
	sender, err := cekafka.NewSender(k.ListenAddrs(), saramaConfig(), "t")
	require.NoError(t, err)
	defer sender.Close(context.Background())
	e := cloudevents.NewEvent()
	e.SetID("e-2")
	e.SetSource("/sdk")
	e.SetType("order.paid")
	require.NoError(t, e.SetData(cloudevents.ApplicationJSON, map[string]int{"total": 8}))
	ctx := cekafka.WithMessageKey(t.Context(), sarama.StringEncoder("order-2"))
	require.NoError(t, sender.Send(ctx, binding.ToMessage(&e)))

	got := make(chan *driver.Delivery, 1)
	start(t, dial(t, k, Config{}), driver.Subscription{Handle: into(got)})
	d := receive(t, got)
	require.Empty(t, d.Message.UUID, "eventbus takes ce_id, else the position")
	require.Equal(t, message.Metadata{"ce_specversion": "1.0", "ce_id": "e-2", "ce_source": "/sdk", "ce_type": "order.paid", "content-type": "application/json"}, d.Message.Metadata)
	require.Equal(t, "order-2", d.Key, "the record's key, for want of ce_partitionkey")
	require.JSONEq(t, `{"total":8}`, text(d))
}

// Whatever is in a topic reaches the handler, once, and what is behind it too.
func TestForeignRecordsDoNotLoop(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "t"))
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...))
	require.NoError(t, err)
	defer cl.Close()
	twice := []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h", Value: []byte("2")}, {Key: "", Value: nil}, {Key: "\xff", Value: []byte{0xff, 0}}}
	for _, r := range []*kgo.Record{
		{Topic: "t"}, // a tombstone without anything
		{Topic: "t", Key: []byte("k"), Value: []byte("\xff\xfe{")},
		{Topic: "t", Key: []byte{}, Headers: twice},
		{Topic: "t", Value: []byte("last")},
	} {
		require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	}
	got := make(chan *driver.Delivery, 10)
	m := start(t, dial(t, k, Config{}), driver.Subscription{Handle: into(got)})
	for i, want := range []string{"", "\xff\xfe{", "", "last"} {
		d := receive(t, got)
		require.Equal(t, want, text(d))
		require.EqualValues(t, i, d.Position.Offset)
		require.Empty(t, d.Message.UUID)
		require.Equal(t, 1, d.Attempt)
		if i == 2 {
			require.True(t, maps.Equal(map[string]string{"h": "2", "": "", "\xff": "\xff\x00"}, d.Message.Metadata))
		}
	}
	m.leave()
	require.Empty(t, got)
}

// A group of Sarama's can't be shared, and the log says why.
func TestGroupWithForeignMembers(t *testing.T) {
	k := cluster(t, kfake.SeedTopics(1, "t", "other"))
	s, err := wk.NewSubscriber(wk.SubscriberConfig{Brokers: k.ListenAddrs(), Unmarshaler: wk.DefaultMarshaler{}, ConsumerGroup: "g", OverwriteSaramaConfig: saramaConfig()}, watermill.NopLogger{})
	require.NoError(t, err)
	defer s.Close()
	_, err = s.Subscribe(t.Context(), "other")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err = k.WaitGroupStable(ctx, "g", 1)
	require.NoError(t, err)
	began := time.Now()
	_, err = dial(t, k, Config{}).Subscribe(t.Context(), driver.Subscription{Topic: "t", Group: "g", Concurrency: 1, Handle: func(*driver.Delivery) driver.Result { return driver.Result{} }})
	require.ErrorContains(t, err, "the group has members with another way of sharing partitions, such as Watermill's own Kafka subscriber; stop them or use another group")
	require.Less(t, time.Since(began), patience)
}
