package idempotency

import (
	"context"
	"errors"
	"strconv"

	"github.com/millrace-go/millrace/eventbus"
)

// Leased makes a handler for eventbus.Subscribe whose effects are outside of
// the service's database: a mail, a charge, a file. Of the deliveries of one
// event to a consumer group one runs h; once it has succeeded the others are
// acknowledged without it. Effects in the database belong into Once, which
// leaves no gap between the effect and its record; here a crash in that gap has
// h run again, with c.Attempt above 1.
//
// h should pass an id of its own making on to where the effect happens, such as
// the event's as an idempotency key, and end when ctx does: see Do.
//
// An error of h is returned as it is, and the event comes again. A delivery while
// another member works on the event is an error that asks to be delivered again
// when the lease ends. An event that is older than Policy.Retention and of which
// nothing is known is refused with ErrTooOld, a permanent error, so that it
// becomes a dead letter; AnyAge has it handled. An event without a time can't be
// judged and is handled. One without an id, or outside of a consumer group, is a
// permanent error.
func Leased[T any](g *Guard, h func(ctx context.Context, c Claim, e eventbus.Event[T]) error, opts ...CallOption) func(context.Context, eventbus.Event[T]) error {
	return func(ctx context.Context, e eventbus.Event[T]) error {
		if g == nil || h == nil {
			return eventbus.Permanent(errors.New("idempotency: Leased was given a nil guard or handler"))
		}
		k, err := eventKey(e.Attributes, e.Delivery)
		if err != nil {
			return err
		}
		c, err := g.call(k, append([]CallOption{IssuedAt(e.Time)}, opts...))
		if err != nil {
			return err
		}
		_, _, err = g.run(ctx, c, func(ctx context.Context, c Claim) (kept, error) {
			return kept{kind: keptResult}, h(ctx, c, e)
		})
		if errors.Is(err, ErrUnrecorded) {
			return nil // and logged; to deliver it again would repeat the effect for certain
		}
		return err
	}
}

// eventKey holds the source with its length, so that no two events share a key.
func eventKey(a eventbus.Attributes, d eventbus.Delivery) (Key, error) {
	switch {
	case d.Group == "":
		return Key{}, eventbus.Permanent(errors.New("idempotency: event " + cut(a.ID, maxShown) + ": the consumer is empty: call the handler from eventbus.Subscribe"))
	case a.ID == "":
		return Key{}, eventbus.Permanent(errors.New("idempotency: the event has no id, so repetitions can't be recognised"))
	}
	return Key{Scope: d.Group, ID: strconv.Itoa(len(a.Source)) + ":" + a.Source + ":" + a.ID}, nil
}
