package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
)

// Start begins an instance by a message to its orchestrator, which goes to any
// publisher: an outbox within the transaction of the caller, or a bus. Repeating
// it for an id that is there already changes nothing.
func Start[S any](ctx context.Context, to message.Publisher, d Definition[S], id string, state S) error {
	return tell(ctx, to, d.Name, control{ID: id, Kind: controlStart}, state)
}

// SendSignal tells an instance something by a message, like Start.
func SendSignal(ctx context.Context, to message.Publisher, saga, id, signal string, data any) error {
	return tell(ctx, to, saga, control{ID: id, Kind: controlSignal, Name: signal}, data)
}

func tell(ctx context.Context, to message.Publisher, saga string, c control, data any) error {
	if c.ID == "" {
		return eventbus.Permanent(fmt.Errorf("saga %q: %s: the id is empty", saga, c.Kind))
	}
	if err := driver.CheckTopic(controlName(saga)); err != nil {
		return eventbus.Permanent(fmt.Errorf("saga %q: %w", saga, err))
	}
	var err error
	if c.Data, err = json.Marshal(data); err != nil {
		return eventbus.Permanent(fmt.Errorf("saga %q: instance %q: %s: the data can't be encoded: %w", saga, c.ID, c.Kind, err))
	}
	return controlTopic(saga).Publish(ctx, to, c)
}

// Execute begins an instance and runs it here until it waits for something or
// has ended, and returns it. If the process dies meanwhile, one that serves the
// saga takes the instance up after Config.RecoverAfter: see Recover. An error with
// ErrExists in its chain says that there is an instance of that id.
func Execute[S any](ctx context.Context, o *Orchestrator, d Definition[S], id string, state S) (Instance, error) {
	i, err := o.execute(ctx, d.Name, id, &state)
	if err != nil {
		return i, fmt.Errorf("saga %q: instance %q: execute: %w", d.Name, id, err)
	}
	return i, nil
}

func (o *Orchestrator) execute(ctx context.Context, saga, id string, state any) (Instance, error) {
	plan := o.newest(saga)
	if plan == nil {
		return Instance{}, eventbus.Permanent(errors.New("the orchestrator has no definition of it"))
	}
	i := plan.instance(id)
	t := o.newTransit(ctx, plan, i, &progress{}, state)
	t.key = "start"
	broken, err := o.begin(t)
	if err != nil {
		return Instance{}, err
	}
	if broken != nil {
		t = o.newTransit(ctx, plan, i, &progress{}, state)
		t.fail(broken)
	}
	t.recoverable = len(t.calls) > 0
	err = o.commit(ctx, t, nil)
	if errors.Is(err, ErrConflict) {
		return Instance{}, ErrExists
	}
	if err != nil {
		return Instance{}, err
	}
	if t, err = o.drive(ctx, t); err != nil {
		return Instance{}, err
	}
	return t.instance, nil
}

// Get returns an instance, or an error with ErrNoInstance in its chain.
func (o *Orchestrator) Get(ctx context.Context, saga, id string) (Instance, error) {
	i, err := o.store.Load(ctx, saga, id)
	if err != nil {
		return i, fmt.Errorf("saga %q: instance %q: %w", saga, id, err)
	}
	return i, nil
}

// StateOf returns the state of an instance of d, brought to its version.
func StateOf[S any](d Definition[S], i Instance) (S, error) {
	schema := d.schema()
	state, err := schema.decode(i.State, i.StateVersion)
	if err != nil {
		var zero S
		return zero, fmt.Errorf("saga %q: instance %q: %w", i.Saga, i.ID, err)
	}
	return *state.(*S), nil
}

// List returns instances, newest transition first.
func (o *Orchestrator) List(ctx context.Context, q Query) ([]Instance, error) {
	return o.store.List(ctx, q)
}

// History returns the transitions of an instance, oldest first.
func (o *Orchestrator) History(ctx context.Context, saga, id string) ([]Entry, error) {
	return o.store.History(ctx, saga, id)
}

// Count returns how many instances of a saga there are by status.
func (o *Orchestrator) Count(ctx context.Context, saga string) (map[Status]int64, error) {
	return o.store.Count(ctx, saga)
}

// Signal tells an instance something, here and now.
func (o *Orchestrator) Signal(ctx context.Context, saga, id, signal string, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("saga %q: instance %q: signal %q: the data can't be encoded: %w", saga, id, signal, err)
	}
	return o.operate(ctx, saga, control{ID: id, Kind: controlSignal, Name: signal, Data: raw})
}

// Cancel compensates a running instance. Past its pivot that is not possible.
func (o *Orchestrator) Cancel(ctx context.Context, saga, id, reason string) error {
	return o.operate(ctx, saga, control{ID: id, Kind: controlCancel, Name: reason})
}

// Compensate undoes all that an instance has done, also past its pivot, as far
// as its steps have compensations, and also when it has completed.
func (o *Orchestrator) Compensate(ctx context.Context, saga, id, reason string) error {
	return o.operate(ctx, saga, control{ID: id, Kind: controlCompensate, Name: reason})
}

// Retry goes on with a stuck instance: what failed is tried again, with all its
// attempts.
func (o *Orchestrator) Retry(ctx context.Context, saga, id string) error {
	return o.operate(ctx, saga, control{ID: id, Kind: controlRetry})
}

// Skip takes a step that an instance is waiting for, or can't get done, for done:
// forward if the instance is going forward, else its compensation.
func (o *Orchestrator) Skip(ctx context.Context, saga, id, step string) error {
	return o.operate(ctx, saga, control{ID: id, Kind: controlSkip, Name: step})
}

func (o *Orchestrator) operate(ctx context.Context, saga string, c control) error {
	err := o.operateOn(ctx, saga, c)
	if err != nil {
		return fmt.Errorf("saga %q: instance %q: %s: %w", saga, c.ID, c.Kind, err)
	}
	return nil
}

func (o *Orchestrator) operateOn(ctx context.Context, saga string, c control) error {
	plan := o.newest(saga)
	if plan == nil {
		return eventbus.Permanent(errors.New("the orchestrator has no definition of it"))
	}
	m, err := plan.control().Message(ctx, o.origin, c)
	if err != nil {
		return err
	}
	a, err := o.readControl(saga, m)
	if err != nil {
		return eventbus.Permanent(err)
	}
	return o.arrive(ctx, saga, a)
}
