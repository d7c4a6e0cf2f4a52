package eventbus

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Event is what a handler is called with: a decoded payload and where it came
// from.
type Event[T any] struct {
	Attributes
	Delivery

	// Data is the decoded payload.
	Data T

	// Metadata holds every attribute and header as it arrived. It belongs to the
	// handler.
	Metadata map[string]string
}

// Delivery says how an event reached its handler.
type Delivery struct {
	// Topic the event was published to.
	Topic string
	// Group is the consumer group that handles it, the consumer's name in an
	// inbox.
	Group string
	// Attempt counts deliveries to the group, starting at 1; retries in place
	// are not deliveries.
	Attempt int
}

// DeliveryOf returns how the event that is being handled with ctx has reached its
// handler, for handlers of untyped messages.
func DeliveryOf(ctx context.Context) (d Delivery, ok bool) {
	h := handlingFrom(ctx)
	if h == nil {
		return Delivery{}, false
	}
	return h.delivery, true
}

// Decode reads m as an event of topic t, in binary or structured CloudEvents
// mode or as a bare payload. Errors are permanent. Handlers don't need it: it is
// for raw Watermill subscribers and for tests.
func (t Topic[T]) Decode(m *message.Message) (Event[T], error) {
	if err := unwrapStructured(m); err != nil {
		return Event[T]{}, Permanent(fmt.Errorf("topic %q: %w", t.name, err))
	}
	return t.decode(m, scan(m), deliveryOf(m.Context(), t.name))
}

// decode is Decode of a message whose envelope has been read.
func (t Topic[T]) decode(m *message.Message, env envelope, d Delivery) (Event[T], error) {
	e := Event[T]{Metadata: m.Metadata, Delivery: d}
	var err error
	if e.Attributes, err = env.check(); err != nil {
		return e, Permanent(fmt.Errorf("topic %q: %w", t.name, err))
	}
	if err := t.codec.Unmarshal(m.Payload, &e.Data); err != nil {
		return e, Permanent(fmt.Errorf("topic %q: event %s: payload can't be decoded as %T: %w", t.name, e.ID, e.Data, err))
	}
	return e, nil
}
