package amqpbus

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	wamqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cloudevents/sdk-go/v2/event"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func watermillConfig(t *testing.T) wamqp.Config {
	return wamqp.NewDurablePubSubConfig(serverURL(t), wamqp.GenerateQueueNameTopicNameWithSuffix("watermill"))
}

func TestWatermillPublishesToOurGroup(t *testing.T) {
	topic := topicFor(t)
	got := deliveries()
	start(t, openWith(t, ""), driver.Subscription{Topic: topic, Handle: into(got)})
	p, err := wamqp.NewPublisher(watermillConfig(t), watermill.NopLogger{})
	require.NoError(t, err)
	defer p.Close()
	for i := range 20 {
		m := msg("k", i)
		m.Metadata["plain"] = "x"
		require.NoError(t, p.Publish(topic, m))
	}
	for i := range 20 {
		d := receive(t, got)
		require.Equal(t, fmt.Sprint(i), text(d), "one routing key, so one queue, so in order")
		require.Equal(t, fmt.Sprint("id-", i), d.Message.UUID)
		require.Equal(t, message.Metadata{"ce_partitionkey": "k", "plain": "x"}, d.Message.Metadata)
	}
}

func TestWatermillSubscribesToOurTopic(t *testing.T) {
	topic := topicFor(t)
	s, err := wamqp.NewSubscriber(watermillConfig(t), watermill.NopLogger{})
	require.NoError(t, err)
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	messages, err := s.Subscribe(ctx, topic)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = raw(t).QueueDelete(topic+"_watermill", false, false, false) })
	m := msg("k", 1)
	m.Metadata["plain"], m.Metadata["content-type"] = "x", "text/plain"
	require.NoError(t, openWith(t, "").Publish(topic, m))
	got := receive(t, messages)
	got.Ack()
	require.Equal(t, "id-1", got.UUID)
	require.Equal(t, "1", string(got.Payload))
	require.Equal(t, message.Metadata{"cloudEvents:partitionkey": "k", "plain": "x"}, got.Metadata)
}

// What is on the wire is a CloudEvent by the rules of the AMQP binding: the SDK
// takes what they say it is. (RabbitMQ before 4 passes no headers to clients that
// speak AMQP 1.0, so its plugin for that can't be the judge.)
func TestCloudEventsOnTheWire(t *testing.T) {
	topic := topicFor(t)
	b := openWith(t, "")
	require.NoError(t, b.Provision(t.Context(), topic))
	ch := raw(t)
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	require.NoError(t, err)
	require.NoError(t, ch.QueueBind(q.Name, "", topic, false, nil))
	m := message.NewMessage("e1", []byte(`{"n":1}`))
	m.Metadata = message.Metadata{
		"ce_specversion": "1.0", "ce_id": "e1", "ce_source": "/shop", "ce_type": "order.placed", "ce_time": "2026-11-21T01:02:03Z",
		"ce_partitionkey": "k", "content-type": "application/json",
	}
	require.NoError(t, b.Publish(topic, m))
	got, ok, err := ch.Get(q.Name, true)
	require.NoError(t, err)
	require.True(t, ok)

	attributes := map[string]any{}
	for name, value := range got.Headers {
		if attribute, ok := strings.CutPrefix(name, "cloudEvents:"); ok {
			attributes[attribute] = value
		}
	}
	attributes["datacontenttype"], attributes["data"] = got.ContentType, json.RawMessage(got.Body)
	structured, err := json.Marshal(attributes)
	require.NoError(t, err)
	var e event.Event
	require.NoError(t, json.Unmarshal(structured, &e))
	require.NoError(t, e.Validate())
	require.Equal(t, []any{"e1", "/shop", "order.placed", "k", "application/json"}, []any{e.ID(), e.Source(), e.Type(), e.Extensions()["partitionkey"], e.DataContentType()})
	require.JSONEq(t, `{"n":1}`, string(e.Data()))
}

func TestForeignPublishersAreRead(t *testing.T) {
	topic := topicFor(t)
	got := deliveries()
	start(t, openWith(t, ""), driver.Subscription{Topic: topic, Handle: into(got)})
	require.NoError(t, raw(t).Publish(topic, "some.key", true, false, amqp.Publishing{
		MessageId: "m1", ContentType: "application/json", Body: []byte("{}"),
		Headers: amqp.Table{"n": int32(7), "cloudEvents_type": "t", "list": []any{1, 2}},
	}))
	d := receive(t, got)
	require.Equal(t, "m1", d.Message.UUID)
	require.Equal(t, message.Metadata{"n": "7", "ce_type": "t", "content-type": "application/json"}, d.Message.Metadata)
}

// Watermill can't read what came back through a dead-letter exchange, because
// its headers are no text.
func TestDeadLetteredMessagesAreReadable(t *testing.T) {
	topic := topicFor(t)
	got := deliveries()
	start(t, openWith(t, ""), driver.Subscription{Topic: topic, Handle: into(got)})
	ch := raw(t)
	q, err := ch.QueueDeclare("", false, true, true, false, amqp.Table{"x-dead-letter-exchange": topic})
	require.NoError(t, err)
	p, err := encode(msg("k", 1), []byte("1"))
	require.NoError(t, err)
	require.NoError(t, ch.Publish("", q.Name, true, false, p))
	refused, ok, err := ch.Get(q.Name, false)
	require.NoError(t, err)
	require.True(t, ok)
	require.NoError(t, refused.Reject(false))
	d := receive(t, got)
	require.Equal(t, message.Metadata{"ce_partitionkey": "k"}, d.Message.Metadata)
	require.Equal(t, "id-1", d.Message.UUID)
}
