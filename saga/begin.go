package saga

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
)

// prepareFirst begins an instance, if that is what a does.
func (o *Orchestrator) prepareFirst(ctx context.Context, saga string, a *arrival) (*transit, error) {
	plan := o.newest(saga)
	state := plan.fresh()
	i := plan.instance(a.id)
	p := &progress{}
	switch {
	case a.act != nil && a.act.Kind == controlStart:
		if err := json.Unmarshal(a.act.Data, state); err != nil {
			return nil, eventbus.Permanent(fmt.Errorf("the state to begin with can't be decoded as %s: %w", plan.what, err))
		}
		p.Parent = a.act.Parent
	case a.act != nil && a.act.Kind == controlCompensate && a.act.Parent != nil:
		return o.prepareUndone(ctx, plan, i, a)
	case a.act != nil && a.act.Kind == controlWake:
		return nil, nil
	case a.act == nil && match(plan.startedBy, a.key) != nil:
		a.src = match(plan.startedBy, a.key)
	default:
		return nil, missing(a)
	}
	t := o.newTransit(ctx, plan, i, p, state)
	t.key = "start"
	if a.act == nil {
		if err := t.event(a); err != nil {
			return nil, err
		}
	}
	broken, err := o.begin(t)
	if broken == nil {
		return t, err
	}
	return o.stillborn(ctx, plan, i, a, broken)
}

// begin starts the instance of t, and makes the calls that it begins with before
// it is stored. That saves a transaction: if this process dies, what started the
// instance comes again. broken is an error of a function of the definition.
func (o *Orchestrator) begin(t *transit) (broken, err error) {
	broken = t.guard(func() error {
		t.plan.program.begin(t)
		return t.takeEarly()
	})
	if broken != nil || len(t.calls) == 0 {
		return broken, nil
	}
	before, err := json.Marshal(t.state)
	if err != nil {
		return nil, eventbus.Permanent(fmt.Errorf("the state can't be encoded: %w", err))
	}
	returned, err := o.callAll(t.ctx, t)
	if err != nil {
		return nil, err
	}
	if t.state, err = t.plan.decode(before, t.plan.stateVersion); err != nil { // as in next
		return nil, err
	}
	t.now = now()
	return o.takeReturned(t, returned), nil
}

// stillborn is an instance whose definition's functions fail at once.
func (o *Orchestrator) stillborn(ctx context.Context, plan *blueprint, i Instance, a *arrival, cause error) (*transit, error) {
	state := plan.fresh()
	p := &progress{}
	if a.act != nil {
		p.Parent = a.act.Parent
		_ = json.Unmarshal(a.act.Data, state) // it could be decoded before
	}
	t := o.newTransit(ctx, plan, i, p, state)
	if a.act == nil {
		t.key = a.key
		if err := t.keep(a.m); err != nil {
			return nil, err
		}
	}
	t.fail(cause)
	return t, nil
}

// prepareUndone makes an instance whose parent compensates it, though there is
// none. Either the compensation has overtaken the start, which must find that it
// came too late; or the instance is no longer kept, and its compensation must not
// be taken for done.
func (o *Orchestrator) prepareUndone(ctx context.Context, plan *blueprint, i Instance, a *arrival) (*transit, error) {
	t := o.newTransit(ctx, plan, i, &progress{Parent: a.act.Parent, Lost: a.act.Done}, plan.fresh())
	t.key = string(controlCompensate)
	if a.act.Done {
		t.stuck("its parent is compensated, and it had completed, but is no longer stored: undo by hand what it did, then call Compensate; keep instances longer")
		return t, nil
	}
	t.note = "compensated before it was started"
	t.end(Compensated)
	return t, nil
}

// laterAttempts is how often an event is delivered for which there is no instance
// yet: for some three minutes.
const laterAttempts = 10

// missing answers an event that no instance is there for.
func missing(a *arrival) error {
	if a.act != nil || a.src == nil {
		return eventbus.Permanent(ErrNoInstance)
	}
	switch a.src.missing {
	case Ignore:
		return nil
	case Later:
		if d, ok := eventbus.DeliveryOf(a.m.Context()); ok && d.Attempt < laterAttempts {
			return eventbus.RetryAfter(ErrNoInstance, time.Second)
		}
	}
	return eventbus.Permanent(fmt.Errorf("%w: check the correlation of topic %q", ErrNoInstance, a.src.topic))
}
