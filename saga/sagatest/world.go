package sagatest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/saga"
)

// service names the service of the orchestrator.
const service = "sagas"

// World is sagas with their orchestrator, their participants, and the network
// between them, in memory and under virtual time. It is a message.Publisher:
// what is published to it goes over the network. It is not safe for concurrent
// use, but for what functions of saga.Call need: Participant and Participant.Do.
type World struct {
	run   *run   // nil: nothing goes wrong
	trace *trace // nil: nobody reads it
	limit int    // of steps
	steps int

	definitions   []saga.Untyped
	sagas         []string
	orchestrators [2]*saga.Orchestrator // the second for what happens at the same time
	store         *recorder
	participants  map[string]*Participant
	consumers     map[string][]*consumer // by topic

	network
	sent    []sent
	dead    []DeadLetter
	failure error

	current   *delivery
	alternate bool // two processes take turns
	crashed   bool // the process that handles current
	nested    bool // current is delivered within another delivery

	effects bool // of the delivery: there were some

	calling  sync.Mutex // for calls that are made side by side
	called   []*Tx      // by them, since the last commit
	fate     bool       // of these calls is decided
	lateCall bool       // their answers don't arrive
}

// consumer is who handles the messages of a topic.
type consumer struct {
	name    string
	group   string
	saga    bool
	handles [2]message.NoPublishHandlerFunc // by process
}

// sent is a message that somebody has published.
type sent struct {
	topic string
	m     *message.Message
}

// DeadLetter is a message that its consumer has given up.
type DeadLetter struct {
	Topic    string
	Consumer string // "saga" and its name, or the participant's
	Message  *message.Message
	Err      error
}

func newWorld() *World {
	w := &World{participants: map[string]*Participant{}, consumers: map[string][]*consumer{}, limit: 1 << 20}
	w.store = newRecorder(w)
	return w
}

// Orchestrate has the definitions run, with the versions of one saga and the
// sagas that are steps of others among them.
func (w *World) Orchestrate(definitions ...saga.Untyped) {
	w.definitions = append(w.definitions, definitions...)
	if w.fail(w.boot(0)) {
		return
	}
	w.sagas = nil
	for _, s := range w.orchestrators[0].Subscriptions(service) {
		if !slices.Contains(w.sagas, s.Saga) {
			w.sagas = append(w.sagas, s.Saga)
		}
	}
}

// boot starts a process of the orchestrator, which remembers nothing.
func (w *World) boot(process int) error {
	o, err := saga.NewOrchestrator(w.store, saga.Config{Logger: slog.New(slog.DiscardHandler)}, w.definitions...)
	if err != nil {
		return err
	}
	w.orchestrators[process] = o
	for _, s := range o.Subscriptions(service) {
		w.consumer(s.Topic, "saga "+s.Saga, s.Group, true).handles[process] = s.Handle
	}
	return nil
}

func (w *World) consumer(topic, name, group string, isSaga bool) *consumer {
	for _, c := range w.consumers[topic] {
		if c.name == name {
			return c
		}
	}
	c := &consumer{name: name, group: group, saga: isSaga}
	w.consumers[topic] = append(w.consumers[topic], c)
	return c
}

// Participant returns the participant of that name. It is there from the first
// use on. It is safe for concurrent use.
func (w *World) Participant(name string) *Participant {
	w.calling.Lock()
	defer w.calling.Unlock()
	p := w.participants[name]
	if p == nil {
		p = newParticipant(w, name)
		w.participants[name] = p
	}
	return p
}

// Source names the publisher of what is published to the World.
func (w *World) Source() string { return "world" }

// Publish implements message.Publisher.
func (w *World) Publish(topic string, messages ...*message.Message) error {
	for _, m := range messages {
		w.derive(m, "world", fmt.Sprint(len(w.sent)))
		if err := w.send(topic, m, false); err != nil {
			return err
		}
	}
	return nil
}

// Close implements message.Publisher. It does nothing.
func (w *World) Close() error { return nil }

// Publish publishes an event from outside of the World, such as the one that
// begins a saga.
func Publish[E any](w *World, topic eventbus.Topic[E], event E, opts ...eventbus.PublishOption) {
	w.fail(topic.Publish(context.Background(), w, event, opts...))
}

// Act has somebody outside do something to the orchestrator: a Signal, a Cancel.
// In an exploration it happens at every point of the run. An error fails the run,
// so what may come too late has to be allowed for.
func (w *World) Act(name string, act func(ctx context.Context, o *saga.Orchestrator) error) {
	c := &consumer{name: "orchestrator", group: name, saga: true}
	for process := range c.handles {
		c.handles[process] = func(*message.Message) error {
			err := act(context.Background(), w.orchestrators[process])
			if err != nil && !w.crashed {
				w.fail(fmt.Errorf("%s: %w", name, err))
				return nil
			}
			return err
		}
	}
	w.enqueue(&delivery{topic: name, to: c, m: message.NewMessage(name, nil), act: true, content: []byte(name)})
}

// Orchestrator returns the orchestrator, which is another one after a crash.
func (w *World) Orchestrator() *saga.Orchestrator { return w.orchestrators[0] }

// Instances returns all instances, by saga and id.
func (w *World) Instances() []saga.Instance {
	all := make([]saga.Instance, 0, len(w.store.kept))
	for _, k := range slices.SortedFunc(maps.Keys(w.store.kept), compareKeys) {
		all = append(all, w.store.kept[k].instance)
	}
	return all
}

func compareKeys(a, b [2]string) int {
	if c := strings.Compare(a[0], b[0]); c != 0 {
		return c
	}
	return strings.Compare(a[1], b[1])
}

// Instance returns the instance of that id, of the first saga that has one.
func (w *World) Instance(id string) (saga.Instance, bool) {
	for _, s := range w.sagas {
		if k, ok := w.store.kept[[2]string{s, id}]; ok {
			return k.instance, true
		}
	}
	return saga.Instance{}, false
}

// Sent returns the events of topic that anybody has published so far, in order.
func Sent[E any](w *World, topic eventbus.Topic[E]) []E {
	var all []E
	for _, s := range w.sent {
		if s.topic != topic.Name() {
			continue
		}
		e, err := topic.Decode(s.m.Copy())
		if w.fail(err) {
			break
		}
		all = append(all, e.Data)
	}
	return all
}

// fail ends the run, with its first error.
func (w *World) fail(err error) bool {
	if err != nil && w.failure == nil {
		w.failure = err
	}
	return err != nil
}

// send puts a message on the way to all who listen to its topic.
func (w *World) send(topic string, m *message.Message, reply bool) error {
	due, err := driver.Due(m)
	if err != nil {
		return err
	}
	w.sent = append(w.sent, sent{topic, m})
	w.trace.sends(topic, due)
	content := contentOf(topic, m)
	for _, c := range w.consumers[topic] {
		w.enqueue(&delivery{topic: topic, to: c, m: m, at: due, reply: reply && c.saga, content: content})
	}
	return nil
}

// errCrashed is what a process sees of its own end.
var errCrashed = errors.New("the process has crashed")

// now is the virtual time.
func now() time.Time { return time.Now() }
