package eventbus

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// PublishOption says more about one event.
type PublishOption func(*publication)

type publication struct {
	id, source, subject, key string
	due, expiry              time.Time
	metadata                 map[string]string
}

// WithID sets the event's id. Defaults to a UUIDv7 or, while an event is being
// handled, to an id derived from that event, so that a repeated handler
// publishes the same ids.
func WithID(id string) PublishOption {
	return func(p *publication) { p.id = id }
}

// WithSource sets the event's source. Defaults to the service that is
// publishing, then to the Source of the bus or outbox, then to the program's
// name.
func WithSource(source string) PublishOption {
	return func(p *publication) { p.source = source }
}

// WithSubject sets the event's subject. Defaults to none.
func WithSubject(subject string) PublishOption {
	return func(p *publication) { p.subject = subject }
}

// WithKey sets the event's ordering key. Defaults to the topic's KeyBy.
func WithKey(key string) PublishOption {
	return func(p *publication) { p.key = key }
}

// WithDelay has the event delivered no earlier than d from now. A bus whose
// broker has no due times refuses it; an outbox always takes it.
func WithDelay(d time.Duration) PublishOption {
	return func(p *publication) { p.due = time.Now().Add(d) }
}

// WithDueTime has the event delivered no earlier than at; see WithDelay.
func WithDueTime(at time.Time) PublishOption {
	return func(p *publication) { p.due = at }
}

// WithExpiry bounds the handling of the event, and of those that are published
// while handling it: after the given time a handler is not called any more, nor
// tried again, and the event goes to the dead-letter topic with ErrExpired as its
// cause. It is for what is of no use when it is late, such as a quote. Handlers'
// contexts end at that time. The clocks of publisher and consumer must agree.
func WithExpiry(at time.Time) PublishOption {
	return func(p *publication) { p.expiry = at }
}

// WithAll is several options as one.
func WithAll(opts ...PublishOption) PublishOption {
	return func(p *publication) {
		for _, opt := range opts {
			opt(p)
		}
	}
}

// WithMetadata adds a header of the caller's own. The names of the envelope's
// attributes, and those that begin with "millrace_", are refused when publishing;
// ce_traceparent and ce_tracestate replace the inherited trace.
func WithMetadata(name, value string) PublishOption {
	return func(p *publication) {
		if p.metadata == nil {
			p.metadata = map[string]string{}
		}
		p.metadata[name] = value
	}
}

// Publish sends one event to a bus, to an outbox within a transaction
// (box.In(tx)) or to any other Watermill publisher. When it returns nil the
// target has taken responsibility: the broker has stored the event, or the
// transaction will publish it when it commits.
//
// Called while an event is being handled, with the handler's ctx, the new event
// inherits the correlation id and trace of that event and names it as its
// cause.
func (t Topic[T]) Publish(ctx context.Context, to message.Publisher, data T, opts ...PublishOption) error {
	m, err := t.Message(ctx, to, data, opts...)
	if err != nil {
		return err
	}
	return give(to, t.name, m)
}

// give publishes messages that nobody else has.
func give(to message.Publisher, topic string, messages ...*message.Message) error {
	if b, ok := to.(*Bus); ok {
		return b.publish(topic, messages, b.take)
	}
	return to.Publish(topic, messages...)
}

// PublishAll sends several events in one call, which an outbox turns into one
// statement and a broker into one batch. If a broker accepts only some, the
// error is a *driver.BatchError with a reason for each of the others.
func (t Topic[T]) PublishAll(ctx context.Context, to message.Publisher, data []T, opts ...PublishOption) error {
	if len(data) == 0 {
		return nil
	}
	if len(opts) > 0 && collect(opts).id != "" && len(data) > 1 {
		return Permanent(fmt.Errorf("eventbus: publish to topic %q: WithID would give %d events one id", t.name, len(data)))
	}
	messages := make([]*message.Message, len(data))
	for i, v := range data {
		m, err := t.Message(ctx, to, v, opts...)
		if err != nil {
			return fmt.Errorf("event %d of %d: %w", i+1, len(data), err)
		}
		messages[i] = m
	}
	return give(to, t.name, messages...)
}

// Message builds the message that Publish would send to the given target.
func (t Topic[T]) Message(ctx context.Context, to message.Publisher, data T, opts ...PublishOption) (*message.Message, error) {
	if t.codec == nil {
		return nil, Permanent(fmt.Errorf("eventbus: the zero Topic can't be published to; make one with NewTopic"))
	}
	if to == nil {
		return nil, Permanent(fmt.Errorf("eventbus: publish to topic %q: the publisher is nil", t.name))
	}
	payload, err := t.codec.Marshal(data)
	if err != nil {
		return nil, Permanent(fmt.Errorf("eventbus: publish to topic %q: payload of type %T can't be encoded: %w", t.name, data, err))
	}
	p := publication{}
	if len(opts) > 0 {
		p = collect(opts)
	}
	if p.key == "" && t.key != nil {
		p.key = t.key(data)
	}
	h := handlingFrom(ctx)
	now := time.Now()
	if p.id == "" {
		p.id = h.nextID(t.name, now)
	}
	if p.source == "" {
		p.source = sourceFor(h, to)
	}
	m := &message.Message{UUID: p.id, Metadata: make(message.Metadata, 8), Payload: payload}
	m.SetContext(ctx)
	t.stamp(m, p, now)
	inherit(ctx, h, m)
	stampBounds(ctx, h, m, p.expiry)
	return m, addMetadata(m, t.name, p.metadata)
}

// collect is apart from Message so that calls without options don't allocate.
func collect(opts []PublishOption) publication {
	var p publication
	for _, opt := range opts {
		opt(&p)
	}
	return p
}

// stamp writes the attributes; empty ones are left out.
func (t Topic[T]) stamp(m *message.Message, p publication, now time.Time) {
	md := m.Metadata
	md[MetadataSpecVersion] = specVersion
	md[MetadataID] = p.id
	md[MetadataSource] = p.source
	md[MetadataType] = t.eventType
	md[MetadataTime] = now.UTC().Format(time.RFC3339Nano)
	md[MetadataContentType] = t.codec.ContentType()
	if p.key != "" {
		md[MetadataKey] = p.key
	}
	if p.subject != "" {
		md[MetadataSubject] = p.subject
	}
	if t.dataSchema != "" {
		md[MetadataDataSchema] = t.dataSchema
	}
	if !p.due.IsZero() {
		driver.SetDue(m, p.due)
	}
}

// reserved names can't be set by WithMetadata. A trace may.
var reserved = []string{
	MetadataSpecVersion, MetadataID, MetadataSource, MetadataType, MetadataSubject, MetadataTime, MetadataDataSchema,
	MetadataContentType, MetadataKey, MetadataCorrelationID, MetadataCausationID, MetadataExpiryTime, MetadataPreviousAttempts, "",
}

func addMetadata(m *message.Message, topic string, own map[string]string) error {
	for name, value := range own {
		if slices.Contains(reserved, name) || strings.HasPrefix(name, "millrace_") {
			return Permanent(fmt.Errorf("eventbus: publish to topic %q: metadata %q is part of the envelope", topic, name))
		}
		m.Metadata[name] = value
	}
	return nil
}

// sourceFor names the publishing service.
func sourceFor(h *handling, to message.Publisher) string {
	if h != nil {
		return h.service
	}
	if s, ok := to.(interface{ Source() string }); ok && s.Source() != "" {
		return s.Source()
	}
	return programName()
}

var programName = sync.OnceValue(func() string {
	name := filepath.Base(os.Args[0])
	if name == "" || name == "." {
		return "unknown"
	}
	return name
})
