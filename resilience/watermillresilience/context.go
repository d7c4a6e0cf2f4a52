package watermillresilience

import (
	"context"

	"github.com/ThreeDotsLabs/watermill/message"
)

// joined is a context that ends like one and has the values of another before its
// own.
type joined struct {
	context.Context
	values context.Context
}

// join returns a context that ends with the first, and has the values of both.
func join(ends, values context.Context) context.Context {
	return joined{ends, context.WithoutCancel(values)} // or package context would find its own in there
}

func (j joined) Value(key any) any {
	if v := j.values.Value(key); v != nil {
		return v
	}
	return j.Context.Value(key)
}

// revive gives messages that a handler made in the context of an attempt, which
// has ended with it, that of the message they were made from: they are still to
// be published.
func revive(ctx context.Context, produced []*message.Message) {
	for _, m := range produced {
		if m != nil && m.Context().Err() != nil {
			m.SetContext(join(ctx, m.Context()))
		}
	}
}
