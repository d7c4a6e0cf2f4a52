package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/millrace-go/millrace/eventbus"
)

// program is a notation as an interpreter. Its methods are functions of the
// transition alone: they do no I/O, and the same transition has the same outcome.
type program interface {
	// begin starts a new instance.
	begin(t *transit)
	// happen takes an event, in t.key and t.value. It reports false for one that
	// changes nothing now, and whether it should be kept until it does.
	happen(t *transit) (taken, keep bool)
	// returned takes what calls returned that were made side by side.
	returned(t *transit, calls []call)
	// wake looks at the timers.
	wake(t *transit)
	// control takes an operator's act.
	control(t *transit, c control) error
	// nextDue is the earliest time of the timers, or the zero time.
	nextDue(p *progress) time.Time
	// position says what the instance is waiting for, in words.
	position(p *progress) string
	// pending are the calls that have to be made, which is known of an instance
	// whose process has died.
	pending(p *progress) []call
	// sources are all events that can come from outside.
	sources() []source
}

// progress is where an instance is. Both notations use what they need of it.
type progress struct {
	Steps map[string]*stepState `json:"steps,omitempty"`
	// Order in which steps began.
	Order     []string        `json:"order,omitempty"`
	Choices   map[string]bool `json:"choices,omitempty"`
	Rounds    map[string]int  `json:"rounds,omitempty"` // of loops, and of names that were begun anew
	PastPivot bool            `json:"past_pivot,omitempty"`

	State  string               `json:"state,omitempty"`
	Timers map[string]time.Time `json:"timers,omitempty"`
	Seen   map[string][]string  `json:"seen,omitempty"` // of composite events

	// Early are events that came before anything waited for them.
	Early  []early `json:"early,omitempty"`
	Parent *parent `json:"parent,omitempty"`
	// Lost says that the instance had completed and was deleted before its parent
	// wanted it compensated: what it did is not known any more.
	Lost bool `json:"lost,omitempty"`
	// Resume is the status that a stuck instance had.
	Resume Status `json:"resume,omitempty"`
}

// early is an event that is kept.
type early struct {
	Key      string            `json:"key"`
	ID       string            `json:"id"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Payload  []byte            `json:"payload"`
}

// maxEarly bounds how many events an instance keeps.
const maxEarly = 100

// parent is who waits for a sub-saga.
type parent struct {
	Saga string `json:"saga"`
	ID   string `json:"id"`
	Step string `json:"step"`
}

// call is a function to be called, and then what it returned.
type call struct {
	key     string // of the step, with its direction
	name    string // in states, without the round
	action  action
	result  any
	err     error
	timeout time.Duration
}

// transit is one transition in the making.
type transit struct {
	ctx      context.Context
	to       message.Publisher // names the source of messages
	plan     *blueprint
	instance Instance
	progress *progress
	state    any // *S
	now      time.Time

	key   string // of the event
	value any
	src   *source
	step  string // that the event says it answers

	calls []call // to be made after the transition
	// recoverable says that calls are made, or were before and go on, and that
	// nothing comes again if the process that makes them dies.
	recoverable bool
	messages    []Message
	from        string // where the instance was
	was         Status
	note        string
	gotStuck    bool
}

// namespace of the ids of messages, which are derived from the instance so that
// a transition that is done again emits the same ones.
var namespace = uuid.MustParse("6f6d1c1e-4b8e-5d0a-9c55-1f0e6a1d7c01")

// emit writes the command of a to the outbox, for the step of the given key.
func (t *transit) emit(a action, key, attempt string) error {
	m, err := a.message(t.ctx, t.to, t.state,
		eventbus.WithID(t.messageID(key, attempt, strconv.FormatInt(t.instance.Revision, 10))),
		eventbus.WithMetadata(MetadataSaga, t.instance.Saga),
		eventbus.WithMetadata(MetadataInstance, t.instance.ID),
		eventbus.WithMetadata(MetadataStep, stepOf(key)))
	if err != nil {
		return err
	}
	if m.Metadata[eventbus.MetadataKey] == "" {
		m.Metadata[eventbus.MetadataKey] = t.instance.ID
	}
	t.messages = append(t.messages, Message{a.topic, m})
	return nil
}

func (t *transit) messageID(parts ...string) string {
	name := strconv.AppendQuote(make([]byte, 0, 256), t.instance.Saga)
	for _, p := range append([]string{t.instance.ID}, parts...) {
		name = strconv.AppendQuote(append(name, ' '), p)
	}
	return uuid.NewSHA1(namespace, name).String()
}

// apply records an event in the state.
func (t *transit) apply(src *source, value any) {
	if src.apply != nil {
		src.apply(t.state, value)
	}
}

// end finishes the instance.
func (t *transit) end(s Status) {
	t.instance.Status = s
	if p := t.progress.Parent; p != nil {
		state, err := json.Marshal(t.state)
		if err != nil {
			t.stuck(fmt.Sprintf("the state can't be encoded: %v", err))
			return
		}
		announce(t, endedTopic(t.instance.Saga), ended{
			Saga: t.instance.Saga, ID: t.instance.ID, Status: s, State: state, Reason: t.instance.Error,
			Parent: p.Saga, ParentID: p.ID, ParentStep: p.Step,
		}, t.messageID("ended "+string(s)))
	}
}

// stuck stops the instance until an operator helps, and says so.
func (t *transit) stuck(why string) {
	if t.instance.Status != Stuck {
		t.progress.Resume = t.instance.Status
	}
	t.instance.Status, t.instance.Error, t.gotStuck = Stuck, why, true
	announce(t, StuckAlerts(t.instance.Saga), StuckAlert{Saga: t.instance.Saga, ID: t.instance.ID, Version: t.instance.Version, Reason: why},
		t.messageID(fmt.Sprintf("stuck %d", t.instance.Revision)))
}

// announce writes an event of the saga's own to the outbox.
func announce[E any](t *transit, topic eventbus.Topic[E], event E, id string, opts ...eventbus.PublishOption) {
	m, err := topic.Message(t.ctx, t.to, event, append(opts, eventbus.WithID(id))...)
	if err != nil {
		t.note = fmt.Sprintf("event for topic %s could not be made: %v", topic.Name(), err)
		return
	}
	t.messages = append(t.messages, Message{topic.Name(), m})
}

// keep puts the event away until something waits for it.
func (t *transit) keep(m *message.Message) error {
	if len(t.progress.Early) >= maxEarly {
		return eventbus.Permanent(fmt.Errorf("the instance keeps %d events that nothing has waited for yet, the limit", maxEarly))
	}
	t.progress.Early = append(t.progress.Early, early{Key: t.key, ID: m.UUID, Metadata: m.Metadata, Payload: m.Payload})
	t.note = "kept until something waits for it"
	return nil
}

// takeEarly has kept events happen for which something waits now.
func (t *transit) takeEarly() error {
	for again := true; again; {
		again = false
		for i, e := range t.progress.Early {
			src := match(t.plan.all, e.Key)
			if src == nil {
				continue
			}
			m := message.NewMessage(e.ID, e.Payload)
			m.Metadata = e.Metadata
			value, _, err := src.decode(m)
			if err != nil {
				return err
			}
			t.key, t.value, t.src, t.step = e.Key, value, src, answered(m, value)
			t.note = ""
			if taken, keep := t.plan.program.happen(t); taken || !keep {
				t.progress.Early = append(t.progress.Early[:i:i], t.progress.Early[i+1:]...)
				again = taken
				break
			}
		}
		if t.instance.Status.Ended() || t.instance.Status == Stuck {
			return nil
		}
	}
	return nil
}

// guard runs f, which calls the user's functions. A panic of one is an error: it
// must not lose the event.
func (t *transit) guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
		}
	}()
	return f()
}

// panicError is a panic of a function of the definition.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	return fmt.Sprintf("a function of the definition panicked: %v", e.value)
}

// fail makes the instance stuck because of a function of the definition.
func (t *transit) fail(cause error) {
	var p *panicError
	if errors.As(cause, &p) {
		t.note = string(p.stack[:min(len(p.stack), maxStack)])
	}
	t.stuck(cause.Error())
}

// maxStack bounds the stack in a history entry, in bytes.
const maxStack = 4096
