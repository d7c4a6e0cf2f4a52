package amqpbus

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func roundTrip(t testing.TB, m *message.Message) *record {
	t.Helper()
	p, err := encode(m, m.Payload)
	require.NoError(t, err)
	return decode(&amqp.Delivery{Headers: p.Headers, ContentType: p.ContentType, MessageId: p.MessageId, Body: p.Body})
}

func TestCloudEventsBinding(t *testing.T) {
	m := message.NewMessage("e1", []byte("{}"))
	m.Metadata = message.Metadata{"ce_type": "order.placed", "ce_partitionkey": "k", "content-type": "application/json", "plain": "x"}
	p, err := encode(m, m.Payload)
	require.NoError(t, err)
	require.Equal(t, amqp.Table{"cloudEvents:type": "order.placed", "cloudEvents:partitionkey": "k", "plain": "x", "_watermill_message_uuid": "e1"}, p.Headers)
	require.Equal(t, "application/json", p.ContentType)
	require.Equal(t, "e1", p.MessageId)
	r := roundTrip(t, m)
	require.Equal(t, m.Metadata, r.metadata)
	require.Equal(t, "k", r.key)

	underscores := decode(&amqp.Delivery{Headers: amqp.Table{"cloudEvents_type": "t", "cloudEvents_partitionkey": "k"}})
	require.Equal(t, message.Metadata{"ce_type": "t", "ce_partitionkey": "k"}, underscores.metadata)
	require.Equal(t, "k", underscores.key)
}

func TestOddMetadataSurvives(t *testing.T) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	m := message.NewMessage("e", nil)
	for _, k := range []string{
		"", "ce_", "ce_ X \u2713", "cloudEvents:type", "cloudEvents_type", "CC", "BCC", "x-death", "x-delivery-count", "x-mine",
		"_watermill_message_uuid", "millrace:", "millrace:CC", "content-type ", string(every[1:200]),
	} {
		m.Metadata[k] = string(every) + k
	}
	for _, contentType := range []string{"", "text/plain", "line\nbreak", "\u00fc", strings.Repeat("x", 256)} {
		m.Metadata["content-type"] = contentType
		require.Equal(t, m.Metadata, roundTrip(t, m).metadata)
	}
	for _, id := range []string{"e", "with \x00 and \u00fc", strings.Repeat("x", 300)} {
		m.UUID = id
		require.Equal(t, id, roundTrip(t, m).id)
	}
	p, err := encode(m, nil)
	require.NoError(t, err)
	for name := range p.Headers {
		require.False(t, brokerHeaders[name], "header %q means something to the broker", name)
	}
}

func TestForeignHeadersAreNoError(t *testing.T) {
	at := time.Date(2026, 11, 21, 1, 2, 3, 0, time.UTC)
	r := decode(&amqp.Delivery{MessageId: "m1", ContentType: "text/plain", Headers: amqp.Table{
		"int": int32(-7), "long": int64(math.MinInt64), "byte": uint8(255), "bool": true, "float": 1.5, "time": at, "bytes": []byte("b"), "text": "t",
		"none": nil, "table": amqp.Table{"a": 1}, "array": []any{1}, "decimal": amqp.Decimal{Scale: 1, Value: 2},
		"x-death": []any{amqp.Table{"count": int64(3)}}, "x-first-death-queue": "q", "x-delivery-count": int64(2),
		"_watermill_message_uuid": nil,
	}})
	require.Equal(t, message.Metadata{
		"int": "-7", "long": "-9223372036854775808", "byte": "255", "bool": "true", "float": "1.5", "time": "2026-11-21T01:02:03Z",
		"bytes": "b", "text": "t", "content-type": "text/plain",
	}, r.metadata)
	require.Equal(t, "m1", r.id)
	require.NotEmpty(t, decode(&amqp.Delivery{}).id, "an event without an id is given one")
}

// Who tells events apart by their position must not take all for one.
func TestPositionsDifferBetweenEvents(t *testing.T) {
	one, two := decode(&amqp.Delivery{MessageId: "1"}), decode(&amqp.Delivery{MessageId: "2"})
	require.NotEqual(t, one.position(), two.position())
	require.Equal(t, one.position(), decode(&amqp.Delivery{MessageId: "1"}).position())
	require.Positive(t, one.position().Offset)
	require.NotEqual(t, decode(&amqp.Delivery{}).position(), decode(&amqp.Delivery{}).position())
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	m := message.NewMessage("e", nil)
	m.Metadata[strings.Repeat("n", 256)] = "v"
	_, err := encode(m, nil)
	require.True(t, driver.IsPermanent(err))
	require.ErrorContains(t, err, "has 256 bytes as a header, AMQP takes 255")
	m.Metadata = message.Metadata{"big": strings.Repeat("v", 120_000)}
	_, err = encode(m, nil)
	require.True(t, driver.IsPermanent(err))
	require.ErrorContains(t, err, "bytes as headers, AMQP takes 120000")
}

func FuzzDecode(f *testing.F) {
	f.Add("ce_type", "v", "content-type", "text/plain", []byte("p"), int64(1))
	f.Add("cloudEvents:x", "", "millrace:CC", "\xff", []byte{}, int64(-1))
	f.Add("cloudEvents_partitionkey", "k", "_watermill_message_uuid", "u", []byte(nil), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string, payload []byte, n int64) {
		foreign := decode(&amqp.Delivery{Body: payload, Headers: amqp.Table{k1: v1, k2: n, v1: []any{v2}, v2: amqp.Table{k1: n}}})
		if foreign.id == "" {
			t.Fatal("no id")
		}
		m := message.NewMessage("id", payload)
		m.Metadata = message.Metadata{k1: v1, k2: v2}
		p, err := encode(m, payload)
		if err != nil {
			return
		}
		r := decode(&amqp.Delivery{Headers: p.Headers, ContentType: p.ContentType, MessageId: p.MessageId, Body: p.Body})
		if r.id != "id" || !bytes.Equal(r.payload, payload) || len(r.metadata) != len(m.Metadata) {
			t.Fatalf("%q %q became %+v", k1, k2, r)
		}
		for k, v := range m.Metadata {
			if r.metadata[k] != v {
				t.Fatalf("metadata %q: %q became %q", k, v, r.metadata[k])
			}
		}
	})
}
