package saga

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/millrace-go/millrace/eventbus"
)

// commit completes a transition and stores it.
func (o *Orchestrator) commit(ctx context.Context, t *transit, a *arrival) error {
	c, err := o.seal(t)
	if err != nil {
		return err
	}
	if a != nil && a.consumer != "" {
		attributes, err := eventbus.ReadAttributes(a.m)
		if err != nil {
			return eventbus.Permanent(err)
		}
		c.Consumer, c.Source, c.EventID = a.consumer, attributes.Source, attributes.ID
		c.Entry.EventID = attributes.ID
	}
	if err := o.store.Commit(ctx, c); err != nil {
		o.cache.drop(t.instance.Saga, t.instance.ID)
		return err
	}
	o.observe(t, c)
	t.instance = c.Instance
	o.cache.put(c.Instance)
	if t.gotStuck {
		o.cfg.Logger.Error("saga: instance is stuck", "saga", c.Instance.Saga, "instance", c.Instance.ID, "reason", c.Instance.Error)
	}
	return nil
}

// seal makes of a transition what is stored.
func (o *Orchestrator) seal(t *transit) (Commit, error) {
	i := t.instance
	i.Revision++
	i.Updated = t.now
	t.arm(&i)
	t.insure(&i, o.cfg.RecoverAfter)
	var err error
	if i.State, err = json.Marshal(t.state); err != nil {
		return Commit{}, eventbus.Permanent(fmt.Errorf("the state can't be encoded: %w", err))
	}
	if i.Progress, err = json.Marshal(t.progress); err != nil {
		return Commit{}, eventbus.Permanent(fmt.Errorf("the progress can't be encoded: %w", err))
	}
	e := Entry{
		Saga: i.Saga, ID: i.ID, Revision: i.Revision, At: t.now, Event: t.key,
		From: t.from, To: describe(t.plan, i, t.progress), State: i.State, Note: t.note,
	}
	for _, m := range t.messages {
		e.Emitted = append(e.Emitted, m.Topic)
	}
	return Commit{Instance: i, Entry: e, Messages: t.messages}, nil
}

// arm writes a wake-up for the earliest timer, unless one is pending that comes no
// later: an instance has one wake-up at a time, however many timers it has.
func (t *transit) arm(i *Instance) {
	due := t.plan.program.nextDue(t.progress)
	if due.IsZero() || i.Status.Ended() || i.Status == Stuck || i.Wake.After(t.now) && !i.Wake.After(due) {
		return
	}
	i.Wake = due
	at := due.Format(time.RFC3339Nano)
	announce(t, t.plan.control(), control{ID: i.ID, Kind: controlWake, Data: []byte(`"` + at + `"`)},
		t.messageID("wake", at, strconv.FormatInt(t.instance.Revision, 10)), eventbus.WithDueTime(due))
}

// describe says where an instance is.
func describe(plan *blueprint, i Instance, p *progress) string {
	if i.Revision == 0 && i.Status == Running && p.State == "" && len(p.Order) == 0 {
		return ""
	}
	where := plan.program.position(p)
	if where == "" || i.Status.Ended() {
		return string(i.Status)
	}
	return string(i.Status) + ": " + where
}

const callPrefix = "call:"

// takeReturned lets what calls returned change the instance. An error is one of a
// function of the definition.
func (o *Orchestrator) takeReturned(t *transit, returned []call) error {
	t.calls = nil
	return t.guard(func() error {
		t.key = callPrefix + returned[0].key
		for _, c := range returned[1:] {
			t.key += ", " + c.key
		}
		event := t.key
		t.plan.program.returned(t, returned)
		defer func() { t.key = event }()
		return t.takeEarly()
	})
}

// drive makes the calls that follow a transition, and the transitions that
// follow them, until the instance waits for something. It returns the last.
func (o *Orchestrator) drive(ctx context.Context, t *transit) (*transit, error) {
	for len(t.calls) > 0 {
		returned, err := o.callAll(ctx, t)
		if err != nil {
			return nil, err
		}
		if t, err = o.afterCalls(ctx, t, returned); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// afterCalls makes the transition that follows the calls of last.
func (o *Orchestrator) afterCalls(ctx context.Context, last *transit, returned []call) (*transit, error) {
	i := last.instance
	t, err := o.next(ctx, last)
	for {
		if err != nil {
			return nil, err
		}
		if broken := o.takeReturned(t, returned); broken != nil {
			if t, err = o.broken(t, i, nil, broken); err != nil {
				return nil, err
			}
		}
		err = o.commit(ctx, t, nil)
		if !errors.Is(err, ErrConflict) {
			return t, err
		}
		if i, err = o.load(ctx, i.Saga, i.ID, true); err != nil {
			return nil, err
		}
		t, err = o.transit(ctx, i)
	}
}

// next begins the transition after last, which is as it was stored. The state is
// decoded all the same: calls have had the one of last, and may still use it.
func (o *Orchestrator) next(ctx context.Context, last *transit) (*transit, error) {
	state, err := last.plan.decode(last.instance.State, last.instance.StateVersion)
	if err != nil {
		return nil, err
	}
	return o.newTransit(ctx, last.plan, last.instance, last.progress, state), nil
}

// again answers an arrival that changes nothing. If it has changed the instance
// before, the process that handled it may have died before it made the calls that
// followed.
func (o *Orchestrator) again(ctx context.Context, saga string, a *arrival) error {
	i := a.found // which is fresh by now
	if i.ID == "" || !i.Status.moving() {
		return nil
	}
	t, err := o.transit(ctx, i)
	if err != nil || len(t.plan.program.pending(t.progress)) == 0 {
		return err
	}
	attributes, err := eventbus.ReadAttributes(a.m)
	if err != nil {
		return eventbus.Permanent(err)
	}
	entries, err := o.store.History(ctx, saga, a.id)
	if err != nil || !slices.ContainsFunc(entries, func(e Entry) bool { return e.EventID == attributes.ID }) {
		return err
	}
	return o.resume(ctx, saga, a.id)
}

// resume makes the calls of an instance whose process may have died.
func (o *Orchestrator) resume(ctx context.Context, saga, id string) error {
	i, err := o.load(ctx, saga, id, true)
	if err != nil {
		return err
	}
	if i.Status.Ended() || i.Status == Stuck {
		return nil
	}
	t, err := o.transit(ctx, i)
	if err != nil {
		return err
	}
	t.calls = t.plan.program.pending(t.progress)
	_, err = o.drive(ctx, t)
	return err
}

// callAll makes the calls of a transition side by side.
func (o *Orchestrator) callAll(ctx context.Context, t *transit) ([]call, error) {
	calls := t.calls
	if len(calls) == 1 {
		o.call(ctx, t, &calls[0])
	} else {
		var wg sync.WaitGroup
		for i := range calls {
			wg.Go(func() { o.call(ctx, t, &calls[i]) })
		}
		wg.Wait()
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return calls, nil
}

// call calls a function of the user's, which gets a state that nobody changes, and
// keeps what it returned in c.
func (o *Orchestrator) call(ctx context.Context, t *transit, c *call) {
	ctx = context.WithValue(ctx, keyOfCall{}, t.instance.Saga+"/"+t.instance.ID+"/"+c.key)
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	defer func() {
		if v := recover(); v != nil {
			c.result, c.err = nil, &panicError{v, debug.Stack()}
			o.cfg.Logger.Error("saga: call panicked", "saga", t.instance.Saga, "instance", t.instance.ID, "call", c.key, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	action, state := c.action, t.state
	if action.policy == nil {
		c.result, c.err = action.call(ctx, state)
		return
	}
	var mu sync.Mutex // a policy's attempts may overlap, and go on when it has returned
	var result any
	succeeded := false
	err := action.policy.Do(ctx, func(ctx context.Context) error {
		r, err := action.call(ctx, state)
		mu.Lock()
		defer mu.Unlock()
		if !succeeded {
			result, succeeded = r, err == nil
		}
		return err
	})
	mu.Lock()
	defer mu.Unlock()
	c.result, c.err = result, err
}
