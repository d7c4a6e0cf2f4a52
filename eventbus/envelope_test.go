package eventbus_test

import (
	"context"
	"errors"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
)

// capture is a publisher that keeps what it is given.
type capture struct{ messages []*message.Message }

func (c *capture) Publish(_ string, m ...*message.Message) error {
	c.messages = append(c.messages, m...)
	return nil
}
func (*capture) Close() error { return nil }

func TestEnvelopeOnTheWire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // for the time
		var c capture
		require.NoError(t, ordersPlaced.Publish(t.Context(), &c, orderPlaced{"o-1", 42},
			eventbus.WithID("e-1"), eventbus.WithSource("shop"), eventbus.WithSubject("o-1"),
			eventbus.WithDelay(time.Hour), eventbus.WithMetadata("tenant", "acme")))
		m := c.messages[0]
		require.Equal(t, "e-1", m.UUID)
		require.Equal(t, `{"OrderID":"o-1","Total":42}`, string(m.Payload))
		require.Equal(t, message.Metadata{
			"ce_specversion":   "1.0",
			"ce_id":            "e-1",
			"ce_source":        "shop",
			"ce_type":          "orders.placed",
			"ce_subject":       "o-1",
			"ce_time":          "2000-01-01T00:00:00Z",
			"content-type":     "application/json",
			"ce_partitionkey":  "o-1",
			"ce_correlationid": "e-1",
			"millrace_due":     "2000-01-01T01:00:00Z",
			"tenant":           "acme",
		}, m.Metadata)
	})
}

func TestIDsAreUUIDs(t *testing.T) {
	var c capture
	require.NoError(t, ordersPlaced.PublishAll(t.Context(), &c, make([]orderPlaced, 2)))
	v7 := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	require.Regexp(t, v7, c.messages[0].UUID)
	require.Less(t, c.messages[0].UUID, c.messages[1].UUID)
}

// A handler that runs again after a crash must publish the same ids, or no
// inbox downstream could tell.
func TestRepeatedHandlerPublishesTheSameIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := openMemory(t)
		var runs [][]string
		svc := eventbus.NewService("billing", bus)
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
			var c capture
			for range 2 {
				require.NoError(t, ordersBilled.Publish(ctx, &c, e.Data))
			}
			require.NoError(t, ordersPlaced.Publish(ctx, &c, e.Data))
			var ids []string
			for _, m := range c.messages {
				ids = append(ids, m.UUID)
			}
			if runs = append(runs, ids); len(runs) < 3 {
				return errors.New("crashed")
			}
			return nil
		}, eventbus.Retry(eventbus.RetryPolicy{Tries: 2}))
		stop := run(t, svc)
		require.NoError(t, ordersPlaced.Publish(t.Context(), bus, orderPlaced{}, eventbus.WithID("018f4e9b-7d2c-7000-8000-000000000001")))
		time.Sleep(time.Minute) // virtual
		require.NoError(t, stop())
		require.Len(t, runs, 3)
		require.Equal(t, runs[0], runs[1])
		require.Equal(t, runs[0], runs[2])
		// Stored ids are a contract: the derivation must never change.
		require.Equal(t, []string{
			"018f4e9b-7d2c-87f0-9701-9bd764d3f124",
			"018f4e9b-7d2c-8def-ac56-6aa488ccc0ba",
			"018f4e9b-7d2c-8117-97b0-8de05f36bd6f",
		}, runs[0])
	})
}

func TestCorrelationAndTraceAreInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		svc := eventbus.NewService("billing", h.Bus())
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
			return ordersBilled.Publish(ctx, h.Bus(), e.Data)
		})
		h.Start(svc)
		ctx := eventbus.WithCorrelationID(t.Context(), "request-7")
		require.NoError(t, ordersPlaced.Publish(ctx, h.Bus(), orderPlaced{}, eventbus.WithMetadata("ce_traceparent", "00-aa-bb-01")))
		billed := eventbustest.AwaitPublished(h, ordersBilled, nil)
		placed := eventbustest.Published(h, ordersPlaced)[0]
		require.Equal(t, "request-7", placed.CorrelationID)
		require.Equal(t, "request-7", billed.CorrelationID)
		require.Equal(t, placed.ID, billed.CausationID)
		require.Equal(t, "00-aa-bb-01", billed.Metadata["ce_traceparent"])
		require.Equal(t, "billing", billed.Source)
	})
}

func TestForeignEventsAreReadable(t *testing.T) {
	bare := func(payload string, metadata ...string) *message.Message {
		m := message.NewMessage("uuid-1", []byte(payload))
		for i := 0; i < len(metadata); i += 2 {
			m.Metadata[metadata[i]] = metadata[i+1]
		}
		return m
	}
	const structured = "application/cloudevents+json"
	for name, test := range map[string]struct {
		m    *message.Message
		want eventbus.Attributes
	}{
		"plain JSON": {
			bare(`{"OrderID":"o-1"}`),
			eventbus.Attributes{ID: "uuid-1", CorrelationID: "uuid-1"},
		},
		"binary mode": {
			bare(`{"OrderID":"o-1"}`, "ce_specversion", "1.0", "ce_id", "e", "ce_source", "/s", "ce_type", "t", "ce_time", "2026-01-02T03:04:05+01:00"),
			eventbus.Attributes{ID: "e", Source: "/s", Type: "t", CorrelationID: "e", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))},
		},
		"structured mode": {
			bare(`{"specversion":"1.0","id":"e","source":"/s","type":"t","subject":"sub","partitionkey":"k","datacontenttype":"application/json","dataschema":"urn:x","correlationid":"c","causationid":"p","data":{"OrderID":"o-1"}}`, "content-type", structured+"; charset=utf-8"),
			eventbus.Attributes{ID: "e", Source: "/s", Type: "t", Subject: "sub", Key: "k", ContentType: "application/json", DataSchema: "urn:x", CorrelationID: "c", CausationID: "p"},
		},
		"structured mode, base64": {
			bare(`{"specversion":"1.0","id":"e","source":"/s","type":"t","sequence":7,"data_base64":"eyJPcmRlcklEIjoiby0xIn0="}`, "content-type", structured),
			eventbus.Attributes{ID: "e", Source: "/s", Type: "t", CorrelationID: "e"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := ordersPlaced.Decode(test.m)
			require.NoError(t, err)
			require.Equal(t, "o-1", e.Data.OrderID)
			require.True(t, test.want.Time.Equal(e.Time))
			e.Time, test.want.Time = time.Time{}, time.Time{}
			require.Equal(t, test.want, e.Attributes)
		})
	}
}

func TestBadEnvelopesAreClearPermanentErrors(t *testing.T) {
	for payload, want := range map[string]string{
		`{"specversion":"2.0","id":"e","data":{}}`:                    `topic "orders.placed": event e: CloudEvents version "2.0": only 1.0 can be read`,
		`{"specversion":"1.0","id":"e","time":"yesterday","data":{}}`: `topic "orders.placed": event e: attribute time: "yesterday" is not an RFC 3339 time`,
		`{"specversion":`:     `topic "orders.placed": event u: structured CloudEvent: unexpected end of JSON input`,
		`{"data_base64":"!"}`: `topic "orders.placed": event u: structured CloudEvent: data_base64: illegal base64 data at input byte 0`,
	} {
		m := message.NewMessage("u", []byte(payload))
		m.Metadata["content-type"] = "application/cloudevents+json"
		_, err := ordersPlaced.Decode(m)
		require.EqualError(t, err, want)
		require.True(t, eventbus.IsPermanent(err))
	}
}

func TestCodecs(t *testing.T) {
	var c capture
	names := eventbus.NewTopic[*wrapperspb.StringValue]("names", eventbus.WithCodec(eventbus.Protobuf))
	require.NoError(t, names.Publish(t.Context(), &c, wrapperspb.String("Ada")))
	require.Equal(t, "application/protobuf", c.messages[0].Metadata["content-type"])
	name, err := names.Decode(c.messages[0])
	require.NoError(t, err)
	require.Equal(t, "Ada", name.Data.GetValue())
	require.ErrorContains(t, names.Publish(t.Context(), &c, nil), "message is nil")

	raw := eventbus.NewTopic[[]byte]("raw", eventbus.WithCodec(eventbus.Bytes))
	require.NoError(t, raw.Publish(t.Context(), &c, []byte{0, 255}))
	require.Equal(t, message.Payload{0, 255}, c.messages[1].Payload)
	back, err := raw.Decode(c.messages[1])
	require.NoError(t, err)
	require.Equal(t, []byte{0, 255}, back.Data)

	wrong := eventbus.NewTopic[string]("wrong", eventbus.WithCodec(eventbus.Protobuf))
	require.EqualError(t, wrong.Publish(t.Context(), &c, "x"), `eventbus: publish to topic "wrong": payload of type string can't be encoded: protobuf: string is not a proto.Message`)
	_, err = wrong.Decode(c.messages[0])
	require.ErrorContains(t, err, "string is not a proto.Message")
}

func TestRedrivenDeadLetterReachesOnlyTheGroupThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		var mu sync.Mutex
		failing := true
		calls := map[string]int{}
		for _, name := range []string{"billing", "shipping"} {
			svc := eventbus.NewService(name, h.Bus(), eventbus.Defaults(eventbus.Concurrency(1)))
			eventbus.Subscribe(svc, ordersPlaced, func(_ context.Context, e eventbus.Event[orderPlaced]) error {
				mu.Lock()
				defer mu.Unlock()
				calls[name+e.Data.OrderID]++
				if name == "billing" && failing {
					return eventbus.Permanent(errors.New("bad order"))
				}
				return nil
			})
			h.Start(svc)
		}
		place(t, h.Bus(), "o-1")
		h.AwaitIdle()
		mu.Lock()
		failing = false
		mu.Unlock()
		dead := h.DeadLetters()
		require.Len(t, dead, 1)
		dead[0].Message.Payload = []byte(`{"OrderID":"o-1-edited"}`)
		require.NoError(t, dead[0].Redrive(t.Context(), h.Bus()))
		h.AwaitIdle()
		require.Equal(t, map[string]int{"billingo-1": 1, "shippingo-1": 1, "billingo-1-edited": 1}, calls)
		require.Len(t, h.DeadLetters(), 1)
	})
}

func TestDeadLetterOfAStructuredEventHoldsItsOriginalBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		svc := eventbus.NewService("billing", h.Bus())
		svc.Handle("orders.placed", func(m *message.Message) error {
			copy(m.Payload, "scribble")
			m.Metadata["scribble"] = "yes"
			return eventbus.Permanent(errors.New("bad order"))
		})
		h.Start(svc)
		const structured = `{"specversion":"1.0","id":"e","source":"/s","type":"t","data":{"OrderID":"o-1"}}`
		m := message.NewMessage("u", []byte(structured))
		m.Metadata["content-type"] = "application/cloudevents+json"
		require.NoError(t, h.Bus().Publish("orders.placed", m))
		h.AwaitIdle()
		dead := h.DeadLetters()[0].Message
		require.Equal(t, structured, string(dead.Payload))
		require.Equal(t, message.Metadata{"content-type": "application/cloudevents+json"}, dead.Metadata)
	})
}

func TestEachTryBeginsWithTheSamePayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := eventbustest.New(t)
		var seen []string
		svc := eventbus.NewService("billing", h.Bus())
		svc.Handle("orders.placed", func(m *message.Message) error {
			seen = append(seen, string(m.Payload))
			copy(m.Payload, "scribble")
			if len(seen) < 3 {
				return errors.New("fails")
			}
			return nil
		})
		h.Start(svc)
		require.NoError(t, h.Bus().Publish("orders.placed", message.NewMessage("u", []byte("original"))))
		h.AwaitIdle()
		require.Equal(t, []string{"original", "original", "original"}, seen)
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"OrderID":"o"}`), "application/json")
	f.Add([]byte(`{"specversion":"1.0","id":"e","data":{"OrderID":"o"}}`), "application/cloudevents+json")
	f.Add([]byte(`{"id":null,"data_base64":"eyJ9"}`), "application/cloudevents+json")
	f.Fuzz(func(t *testing.T, payload []byte, contentType string) {
		m := message.NewMessage("u", payload)
		m.Metadata["content-type"] = contentType
		if _, err := ordersPlaced.Decode(m); err != nil && !eventbus.IsPermanent(err) {
			t.Fatalf("a decoding error that would be retried: %v", err)
		}
	})
}

func FuzzReadDeadLetter(f *testing.F) {
	f.Add("t", "g", "3", "2026-01-02T03:04:05Z")
	f.Add("t", "g", "-", "")
	f.Fuzz(func(t *testing.T, topic, group, attempts, at string) {
		m := message.NewMessage("u", nil)
		m.Metadata[eventbus.MetadataDeadTopic] = topic
		m.Metadata[eventbus.MetadataDeadGroup] = group
		m.Metadata[eventbus.MetadataDeadAttempts] = attempts
		m.Metadata[eventbus.MetadataDeadTime] = at
		if _, err := eventbus.ReadDeadLetter(m); err != nil && !eventbus.IsPermanent(err) {
			t.Fatal(err)
		}
	})
}
