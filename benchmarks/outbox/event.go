package main

import (
	"context"
	"math/rand/v2"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
)

const topic = "orders.placed"

// payload is 1 KiB that compresses to about half, as JSON does.
var payload = func() []byte {
	dice := rand.New(rand.NewPCG(1, 2))
	text := make([]byte, 1024)
	for i := range text {
		text[i] = "0123456789abcdef"[dice.IntN(16)]
	}
	return text
}()

// event is what eventbus publishes, with the usual attributes.
func event(ctx context.Context, key string) *message.Message {
	id := eventbus.NewID()
	m := &message.Message{UUID: id, Payload: payload, Metadata: message.Metadata{
		"ce_specversion": "1.0", "ce_id": id, "ce_source": "shop", "ce_type": "orders.placed.v1",
		"ce_time": "2026-01-02T15:04:05.123456789Z", "content-type": "application/json",
		"ce_partitionkey": key, "ce_correlationid": id, "ce_causationid": id,
		"ce_traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	}}
	m.SetContext(ctx)
	return m
}

// attributes are those of an event as the hand-written outbox stores them: made
// once, for they are to cost nothing there.
var attributes = driver.EncodeMetadata(event(context.Background(), "order-4711").Metadata)

// counter is a publisher that does nothing but count.
type counter struct {
	seen atomic.Int64
	want int64
	done chan struct{}
}

func newCounter(want int) *counter { return &counter{want: int64(want), done: make(chan struct{})} }

func (c *counter) Publish(_ string, messages ...*message.Message) error {
	for _, m := range messages {
		c.hit(m.Payload)
	}
	return nil
}

func (c *counter) Close() error { return nil }

func (c *counter) hit(payload []byte) {
	if len(payload) > 0 && c.seen.Add(1) == c.want {
		close(c.done)
	}
}
