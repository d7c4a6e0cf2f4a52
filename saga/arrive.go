package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
)

// arrival is a message that has arrived for a saga.
type arrival struct {
	m        *message.Message
	consumer string
	key      string     // of the event; empty for an act of control
	id       string     // of the instance
	plan     *blueprint // that has decoded the value
	value    any
	src      *source
	step     string
	act      *control
	found    Instance // as it was last loaded; without an id if there is none
}

func (o *Orchestrator) handler(saga, topic, consumer string) message.NoPublishHandlerFunc {
	return func(m *message.Message) error {
		a, err := o.read(saga, topic, m)
		if err != nil {
			return eventbus.Permanent(fmt.Errorf("saga %q: topic %q: event %s: %w", saga, topic, m.UUID, err))
		}
		if a == nil {
			return nil
		}
		a.consumer = consumer
		if err := o.arrive(m.Context(), saga, a); err != nil {
			return fmt.Errorf("saga %q: instance %q: event %s of topic %q: %w", saga, a.id, m.UUID, topic, err)
		}
		return nil
	}
}

// read finds out what a message is about. It returns nil for one that is of no
// interest.
func (o *Orchestrator) read(saga, topic string, m *message.Message) (*arrival, error) {
	if topic == controlName(saga) {
		return o.readControl(saga, m)
	}
	if of := m.Metadata[MetadataSaga]; of != "" && of != saga {
		return nil, nil // an answer to another saga's command
	}
	for _, b := range o.plans[saga] {
		for _, src := range b.all {
			if src.topic != topic {
				continue
			}
			value, id, err := src.decode(m)
			if err != nil {
				return nil, err
			}
			a := &arrival{m: m, key: src.key, id: id, plan: b, value: value, src: &src, step: answered(m, value)}
			if e, ok := value.(ended); ok {
				if e.Parent != saga {
					return nil, nil
				}
				a.key = childKey(e.Saga, e.Status)
			}
			if id == "" {
				return nil, errors.New("the correlation returned an empty id")
			}
			return a, nil
		}
	}
	return nil, nil
}

// answered returns the key of the step that an event says it answers.
func answered(m *message.Message, value any) string {
	if e, ok := value.(ended); ok {
		return e.ParentStep
	}
	return m.Metadata[MetadataStep]
}

func (o *Orchestrator) readControl(saga string, m *message.Message) (*arrival, error) {
	e, err := o.newest(saga).control().Decode(m)
	if err != nil {
		return nil, err
	}
	c := e.Data
	a := &arrival{m: m, id: c.ID, act: &c}
	if c.ID == "" {
		return nil, errors.New("the message names no instance")
	}
	if c.Kind != controlSignal {
		return a, nil
	}
	a.act, a.key = nil, signalPrefix+c.Name
	for _, b := range o.plans[saga] {
		if src := match(b.all, a.key); src != nil {
			a.plan, a.src = b, src
			a.value, _, err = src.decode(m)
			return a, err
		}
	}
	return nil, fmt.Errorf("no version of the saga knows a signal %q", c.Name)
}

// arrive handles what has arrived, and everything that follows from it at once.
func (o *Orchestrator) arrive(ctx context.Context, saga string, a *arrival) error {
	_, remembered := o.cache.get(saga, a.id)
	for fresh := false; ; fresh = true {
		t, err := o.prepare(ctx, saga, a, fresh)
		switch {
		case t == nil && remembered && !fresh:
			continue // nothing is dropped or refused on the word of the cache
		case err != nil:
			return err
		case t == nil:
			return o.again(ctx, saga, a)
		}
		if a.consumer == "" && len(t.calls) > 0 { // it would not come again
			t.recoverable = true
		}
		err = o.commit(ctx, t, a)
		switch {
		case errors.Is(err, ErrConflict):
			continue
		case errors.Is(err, ErrDuplicate):
			return o.resume(ctx, saga, a.id)
		case err != nil:
			return err
		}
		_, err = o.drive(ctx, t)
		return err
	}
}

// prepare makes the transition that follows from a. It returns nil if there is
// none.
func (o *Orchestrator) prepare(ctx context.Context, saga string, a *arrival, fresh bool) (*transit, error) {
	i, err := o.load(ctx, saga, a.id, fresh)
	a.found = i
	if errors.Is(err, ErrNoInstance) {
		return o.prepareFirst(ctx, saga, a)
	}
	if err != nil {
		return nil, err
	}
	t, err := o.transit(ctx, i)
	if err != nil {
		return nil, err
	}
	if a.act != nil {
		return o.act(t, a)
	}
	if err := t.event(a); err != nil {
		return nil, err
	}
	return o.happens(t, a)
}

// happens lets the event change the instance.
func (o *Orchestrator) happens(t *transit, a *arrival) (*transit, error) {
	before := t.instance
	var taken, keep bool
	err := t.guard(func() error {
		if taken, keep = t.plan.program.happen(t); taken {
			return t.takeEarly()
		}
		return nil
	})
	switch {
	case err != nil:
		return o.broken(t, before, a, err)
	case keep && !taken:
		return t, t.keep(a.m)
	case !taken:
		o.cfg.Logger.Debug("saga: event changes nothing", "saga", before.Saga, "instance", before.ID, "event", a.key, "event_id", a.m.UUID, "reason", t.note)
		return nil, nil
	}
	return t, nil
}

// broken makes an instance stuck whose definition's functions fail, and keeps the
// event for when it is mended.
func (o *Orchestrator) broken(t *transit, before Instance, a *arrival, cause error) (*transit, error) {
	fresh, err := o.transit(t.ctx, before)
	if err != nil {
		return nil, err
	}
	if a != nil && a.act == nil {
		fresh.key = a.key
		if err := fresh.keep(a.m); err != nil {
			return nil, err
		}
	}
	fresh.fail(cause)
	return fresh, nil
}

// act makes the transition of an act of control.
func (o *Orchestrator) act(t *transit, a *arrival) (*transit, error) {
	before := t.instance
	t.key = string(a.act.Kind)
	switch a.act.Kind {
	case controlStart: // repeated by a parent or a client
		return nil, nil
	case controlWake:
		return o.wake(t, a)
	}
	var refused error
	err := t.guard(func() error {
		if refused = t.control(*a.act); refused != nil {
			return nil
		}
		return t.takeEarly()
	})
	if err != nil {
		return o.broken(t, before, a, err)
	}
	if refused != nil && a.act.Parent != nil { // a parent's act that has come before, or too late
		return nil, nil
	}
	if refused != nil {
		return nil, refused
	}
	return t, nil
}

// control lets an act change the instance.
func (t *transit) control(c control) error {
	if t.progress.Lost && (c.Kind != controlCompensate || c.Parent != nil) {
		return eventbus.Permanent(fmt.Errorf("%w: what it did is not known any more; undo that by hand, then call Compensate", ErrNotPossible))
	}
	return t.plan.program.control(t, c)
}

// wake lets timers expire. The clock that set them decides: the wake-up comes
// when it is due, whatever the clock of this machine says.
func (o *Orchestrator) wake(t *transit, a *arrival) (*transit, error) {
	var due time.Time
	if err := json.Unmarshal(a.act.Data, &due); err == nil && due.After(t.now) {
		t.now = due
	}
	if t.instance.Wake.After(t.now) || t.instance.Status.Ended() || t.instance.Status == Stuck || t.plan.program.nextDue(t.progress).IsZero() {
		return nil, nil
	}
	t.instance.Wake = time.Time{}
	before := t.instance
	err := t.guard(func() error {
		t.plan.program.wake(t)
		return t.takeEarly()
	})
	if err != nil {
		return o.broken(t, before, nil, err)
	}
	return t, nil
}

// event makes a what happens, as the instance's version of the definition reads
// it.
func (t *transit) event(a *arrival) (err error) {
	t.key, t.value, t.src, t.step = a.key, a.value, a.src, a.step
	if t.plan == a.plan {
		return nil
	}
	if t.src = match(t.plan.all, a.key); t.src == nil {
		t.value = nil
		return nil
	}
	if t.value, _, err = t.src.decode(a.m); err != nil {
		return eventbus.Permanent(err)
	}
	return nil
}
