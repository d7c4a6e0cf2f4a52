package eventbus

import (
	"fmt"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Topic is a named stream of events with payloads of type T. It is a small
// immutable value: declare it once, at package level, next to T.
type Topic[T any] struct {
	name string
	topicConfig
	key func(T) string
}

type topicConfig struct {
	eventType  string
	dataSchema string
	codec      Codec
	key        any // func(T) string
}

// TopicOption configures a Topic.
type TopicOption func(*topicConfig)

// KeyBy orders the events of a topic by key: events with the same key are
// handled one at a time and in publish order. An empty key means no order. An
// event that fails and waits for a delayed retry is overtaken by later ones of its
// key, unless the handler's RetryPolicy has KeepOrder.
func KeyBy[T any](key func(T) string) TopicOption {
	return func(c *topicConfig) { c.key = key }
}

// WithCodec sets the codec of a topic. Defaults to JSON.
func WithCodec(codec Codec) TopicOption {
	return func(c *topicConfig) { c.codec = codec }
}

// WithType sets the CloudEvents type attribute. Defaults to the topic's name,
// never to the name of the Go type, so that types can be renamed.
func WithType(eventType string) TopicOption {
	return func(c *topicConfig) { c.eventType = eventType }
}

// WithDataSchema sets the CloudEvents dataschema attribute, a URI. Defaults to
// none.
func WithDataSchema(uri string) TopicOption {
	return func(c *topicConfig) { c.dataSchema = uri }
}

// NewTopic declares a topic. It panics on a name that a broker would refuse
// (1 to 249 letters, digits, '.', '_' or '-') and on a KeyBy for another type;
// for names made at run time there is ParseTopic.
func NewTopic[T any](name string, opts ...TopicOption) Topic[T] {
	t, err := ParseTopic[T](name, opts...)
	if err != nil {
		panic("eventbus: NewTopic: " + err.Error())
	}
	return t
}

// ParseTopic is NewTopic that returns its errors.
func ParseTopic[T any](name string, opts ...TopicOption) (Topic[T], error) {
	if err := driver.CheckTopic(name); err != nil {
		return Topic[T]{}, err
	}
	t := Topic[T]{name: name, topicConfig: topicConfig{eventType: name, codec: JSON}}
	for _, opt := range opts {
		opt(&t.topicConfig)
	}
	if t.topicConfig.key != nil {
		key, ok := t.topicConfig.key.(func(T) string)
		if !ok {
			return Topic[T]{}, fmt.Errorf("topic %q: KeyBy was given a %T, the topic's type is %T", name, t.topicConfig.key, *new(T))
		}
		t.key = key
	}
	if t.codec == nil {
		return Topic[T]{}, fmt.Errorf("topic %q: the codec is nil", name)
	}
	return t, nil
}

// Name returns the topic's name on the broker.
func (t Topic[T]) Name() string { return t.name }
