package eventbus

import (
	"context"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// incoming is a delivery with what its tries and a dead letter start from.
type incoming struct {
	*driver.Delivery
	values   context.Context  // what the subscriber put into the message's context
	original *message.Message // where the driver makes no further ones
	cause    cause
	first    handling // context of the first try, mostly the only one
}

// cause is what events published while handling one have from it. It is read
// before the handler can change the message.
type cause struct {
	id, source, topic, correlation string
	traceParent, traceState        string
}

// receive prepares a delivery for its handler. Errors are permanent.
func receive(d *driver.Delivery) (*incoming, error) {
	in := &incoming{Delivery: d, values: d.Message.Context()}
	if d.Original == nil {
		in.original = d.Message.Copy()
	}
	m := d.Message
	in.complete(m)
	in.cause = cause{id: eventID(m), topic: d.Topic}
	if err := unwrapStructured(m); err != nil {
		return in, Permanent(fmt.Errorf("topic %q: %w", d.Topic, err))
	}
	md := m.Metadata
	in.cause = cause{
		id: eventID(m), source: md[MetadataSource], topic: d.Topic, correlation: md[MetadataCorrelationID],
		traceParent: md[MetadataTraceParent], traceState: md[MetadataTraceState],
	}
	return in, nil
}

// complete gives m what every message has, and takes what is none of the
// handler's business.
func (in *incoming) complete(m *message.Message) {
	if m.Metadata == nil {
		m.Metadata = message.Metadata{}
	}
	if eventID(m) == "" {
		m.UUID = in.Topic + "/" + in.Position.String()
	}
	delete(m.Metadata, MetadataRedrive)
}

// asArrived returns the message as it was delivered, whatever handlers did.
func (in *incoming) asArrived() *message.Message {
	var m *message.Message
	if in.Original != nil {
		m = in.Original.NewMessage()
	} else {
		m = in.original.Copy()
	}
	in.complete(m)
	return m
}

// again returns the message for another try.
func (in *incoming) again() *message.Message {
	m := in.asArrived()
	_ = unwrapStructured(m) // it could be unwrapped before
	return m
}

func eventID(m *message.Message) string {
	if id := m.Metadata[MetadataID]; id != "" {
		return id
	}
	return m.UUID
}

// forOthers reports whether m is a dead letter that was sent back to another
// group of the topic.
func forOthers(m *message.Message, topic, group string) bool {
	to, at, ok := strings.Cut(m.Metadata[MetadataRedrive], "/")
	return ok && to == topic && at != group
}
