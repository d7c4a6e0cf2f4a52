package saga

import (
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
)

// Event is what an instance waits for: events of a topic, a signal, or any of
// several. Make one with On, Signal or AnyOf.
type Event[S any] struct{ sources []source }

// source is one kind of event, without its types.
type source struct {
	key     string // topic, or "signal:" and the name
	topic   string
	decode  func(m *message.Message) (value any, id string, err error)
	apply   func(state, value any)
	missing Missing
	problem error
	parts   []source // of a composite event
}

// Missing says what to do with an event for which there is no instance.
type Missing int

const (
	// Fail sends the event to the dead-letter topic, with ErrNoInstance as its
	// cause: most likely the correlation is wrong.
	Fail Missing = iota
	// Ignore drops the event.
	Ignore
	// Later has the event delivered again, with growing pauses for some three
	// minutes, in case the instance is on its way; then it goes to the dead-letter
	// topic.
	Later
)

// On waits for an event of topic. id returns the id of the instance that the
// event is about; apply records it in the state and may be nil. Both must be
// functions of their arguments alone: they may be called again for the same event.
func On[S, E any](topic eventbus.Topic[E], id func(E) string, apply func(s *S, e E)) Event[S] {
	src := source{key: topic.Name(), topic: topic.Name()}
	if id == nil {
		src.problem = fmt.Errorf("event of topic %q: no correlation: the function that returns the instance's id is nil", topic.Name())
	}
	src.decode = func(m *message.Message) (any, string, error) {
		e, err := topic.Decode(m)
		if err != nil {
			return nil, "", err
		}
		return e.Data, id(e.Data), nil
	}
	if apply != nil {
		src.apply = func(state, value any) { apply(state.(*S), value.(E)) }
	}
	return Event[S]{[]source{src}}
}

// Signal waits for a signal from outside: Orchestrator.Signal with this name and
// data that decode, as JSON, into an E.
func Signal[S, E any](name string, apply func(s *S, e E)) Event[S] {
	src := source{key: signalPrefix + name, decode: decodeSignal[E]}
	if apply != nil {
		src.apply = func(state, value any) { apply(state.(*S), value.(E)) }
	}
	return Event[S]{[]source{src}}
}

const signalPrefix = "signal:"

// AnyOf waits for whichever of the events comes first.
func AnyOf[S any](events ...Event[S]) Event[S] {
	var all Event[S]
	for _, e := range events {
		all.sources = append(all.sources, e.sources...)
	}
	return all
}

// IfMissing returns e with another answer to an event for which there is no
// instance. The default is Fail.
func (e Event[S]) IfMissing(m Missing) Event[S] {
	changed := Event[S]{make([]source, len(e.sources))}
	for i, src := range e.sources {
		src.missing = m
		changed.sources[i] = src
	}
	return changed
}

// match returns the source of an event with the given key.
func match(sources []source, key string) *source {
	for i := range sources {
		if sources[i].key == key {
			return &sources[i]
		}
	}
	return nil
}
