package eventbus

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// incoming is a delivery with what its tries and a dead letter start from.
type incoming struct {
	*driver.Delivery
	values   context.Context  // what the subscriber put into the message's context
	original *message.Message // where the driver makes no further ones
	cause    cause
	first    handling    // context of the first try, mostly the only one
	used     atomic.Bool // the message and first
	called   atomic.Bool // the handler, in this try
	expires  time.Time
}

// cause is what events published while handling one have from it. It is read
// before the handler can change the message.
type cause struct {
	envelope
	topic    string
	previous int  // attempts at the call that published it
	dead     bool // it is a dead letter: whoever reads it knows that it is late
}

// receive prepares a delivery for its handler. Errors are permanent.
func receive(d *driver.Delivery) (*incoming, error) {
	m := d.Message
	in := &incoming{Delivery: d, values: m.Context(), cause: cause{envelope: scan(m), topic: d.Topic}}
	if d.Original == nil {
		in.original = m.Copy()
	}
	in.complete(m)
	if isStructured(in.cause.ContentType) {
		if err := unwrapStructured(m); err != nil {
			return in, Permanent(fmt.Errorf("topic %q: %w", d.Topic, err))
		}
		in.cause.envelope = scan(m)
	}
	return in, in.bounds()
}

// bounds reads what bounds the handling of the event.
func (in *incoming) bounds() (err error) {
	if in.cause.previousAttempts != "" {
		in.cause.previous = parsePrevious(in.cause.previousAttempts)
	}
	_, in.cause.dead = in.Message.Metadata[MetadataDeadTopic]
	if in.cause.expiry != "" && !in.cause.dead {
		in.expires, err = parseExpiry(in.cause.ID, in.cause.expiry)
	}
	if err != nil {
		return Permanent(fmt.Errorf("topic %q: %w", in.Topic, err))
	}
	return nil
}

// previous is how many attempts there were before the given try.
func (in *incoming) previous(try int) int { return in.cause.previous + in.Attempt + try - 2 }

// expiresWithin reports whether the event will have expired after d.
func (in *incoming) expiresWithin(d time.Duration) bool {
	return !in.expires.IsZero() && time.Until(in.expires) <= d
}

// complete gives m what every message has, and takes what is none of the
// handler's business.
func (in *incoming) complete(m *message.Message) {
	if m.Metadata == nil {
		m.Metadata = message.Metadata{}
	}
	if in.cause.ID == "" {
		in.cause.ID = in.Topic + "/" + in.Position.String()
		in.cause.CorrelationID = in.cause.ID
	}
	if m.UUID == "" {
		m.UUID = in.cause.ID
	}
	if in.cause.redrive != "" {
		delete(m.Metadata, MetadataRedrive)
	}
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

// forOthers reports whether a redrive mark, "<topic>/<group>", is about another
// group of the topic.
func forOthers(mark, topic, group string) bool {
	to, at, ok := strings.Cut(mark, "/")
	return ok && to == topic && at != group
}
