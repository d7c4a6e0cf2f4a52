package kafkabus

import (
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// outgoing is a delivery and its message in one allocation.
type outgoing struct {
	driver.Delivery
	message message.Message
	record  *record
}

// NewMessage implements driver.Delivery.Original.
func (o *outgoing) NewMessage() *message.Message {
	m := &message.Message{Payload: o.record.Value}
	m.UUID, m.Metadata = decode(o.record.Record, o.record.values)
	return m
}

// deliver is called by the workers.
func (c *consumer) deliver(it *dispatch.Item[record]) {
	r := &it.Record
	o := &outgoing{
		Delivery: driver.Delivery{Topic: c.sub.Topic, Key: it.Key, Position: driver.Position{Partition: r.part.number, Offset: it.Position}, Attempt: it.Attempt},
		message:  message.Message{Payload: r.Value},
		record:   r,
	}
	o.message.UUID, o.message.Metadata = decode(r.Record, r.values)
	o.Message, o.Original = &o.message, o
	c.settle(it, c.sub.Handle(&o.Delivery))
}

func (c *consumer) settle(it *dispatch.Item[record], res driver.Result) {
	r := &it.Record
	if !res.Redeliver {
		if r.part.finish(r) {
			poke(c.stage.wake)
		}
		return
	}
	if res.Delay > 0 && !r.detached {
		r.Record, r.values, r.detached = detached(r.Record), strings.Clone(r.values), true // it may wait long, alone
		it.Key = strings.Clone(it.Key)
	}
	if res.Uncounted {
		it.Attempt--
	}
	if res.Hold || res.Delay <= 0 {
		it.Retry(res.Delay)
		return
	}
	it.Defer(res.Delay)
}
