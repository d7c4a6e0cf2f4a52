package eventbus

import (
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/internal/hop"
)

type (
	handlingKey    struct{}
	correlationKey struct{}
)

// WithCorrelationID gives events that are published with the returned context,
// outside of any handler, a correlation id: that of the web request, say. By
// default such an event starts a correlation of its own.
func WithCorrelationID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, correlationKey{}, id)
}

// handling is the context of one try at handling an event. It carries what
// events published meanwhile inherit, and it ends at the handler's timeout; the
// timer is made only when somebody asks for Done, since most handlers don't.
type handling struct {
	parent   context.Context // when it must end
	values   context.Context // what the subscriber put into the message's context
	service  string
	delivery Delivery
	cause    *cause
	previous int       // attempts before this one
	deadline time.Time // zero: none

	mu        sync.Mutex
	published []published
	timed     context.Context // made by the first Done
	cancel    context.CancelFunc
	finished  bool
}

// published counts events per topic; handlers publish to few.
type published struct {
	topic string
	n     int
}

var canceled = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (h *handling) Deadline() (time.Time, bool) {
	if parent, ok := h.parent.Deadline(); ok && (h.deadline.IsZero() || parent.Before(h.deadline)) {
		return parent, true
	}
	return h.deadline, !h.deadline.IsZero()
}

func (h *handling) Done() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.timed != nil:
	case h.finished:
		h.timed = canceled
	case h.deadline.IsZero():
		h.timed, h.cancel = context.WithCancel(h.parent)
	default:
		h.timed, h.cancel = context.WithDeadline(h.parent, h.deadline)
	}
	return h.timed.Done()
}

func (h *handling) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.timed != nil:
		return h.timed.Err()
	case h.finished:
		return context.Canceled
	case h.parent.Err() != nil:
		return h.parent.Err()
	case !h.deadline.IsZero() && !time.Now().Before(h.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

func (h *handling) Value(key any) any {
	switch key.(type) {
	case handlingKey:
		return h
	case hop.Key:
		return max(h.previous, hop.Previous(h.parent)) // a policy counts on
	}
	h.mu.Lock()
	timed := h.timed
	h.mu.Unlock()
	if timed == nil {
		timed = h.parent
	}
	if v := timed.Value(key); v != nil { // lets package context find its own, and the cause
		return v
	}
	return h.values.Value(key)
}

// finish ends the context after the handler returned.
func (h *handling) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finished = true
	if h.cancel != nil {
		h.cancel()
	}
}

func handlingFrom(ctx context.Context) *handling {
	h, _ := ctx.Value(handlingKey{}).(*handling)
	return h
}

func deliveryOf(ctx context.Context, topic string) Delivery {
	if h := handlingFrom(ctx); h != nil {
		return h.delivery
	}
	return Delivery{Topic: topic}
}

// nextID returns the id of the next event published to topic.
func (h *handling) nextID(topic string, now time.Time) string {
	if h == nil {
		return newIDAt(now)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for i := range h.published {
		if h.published[i].topic == topic {
			h.published[i].n++
			n = h.published[i].n
		}
	}
	if n == 0 {
		n = 1
		h.published = append(h.published, published{topic, n})
	}
	return derivedID(*h.cause, h.delivery.Group, topic, n)
}

// inherit writes what m has from the event that is being handled, or from ctx.
func inherit(ctx context.Context, h *handling, m *message.Message) {
	if h == nil {
		correlation, _ := ctx.Value(correlationKey{}).(string)
		if correlation == "" {
			correlation = m.UUID
		}
		m.Metadata[MetadataCorrelationID] = correlation
		return
	}
	m.Metadata[MetadataCausationID] = h.cause.ID
	m.Metadata[MetadataCorrelationID] = h.cause.CorrelationID
	if h.cause.traceParent != "" {
		m.Metadata[MetadataTraceParent] = h.cause.traceParent
	}
	if h.cause.traceState != "" {
		m.Metadata[MetadataTraceState] = h.cause.traceState
	}
}
