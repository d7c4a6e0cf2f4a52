package saga

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// recoveredTogether is how many instances a process takes up side by side.
const recoveredTogether = 16

// insure sets when the instance is to be taken up by somebody else. A time that
// is set stays while it is long enough, so that few transitions of an instance
// change what it is found by.
func (t *transit) insure(i *Instance, after time.Duration) {
	var calls []call
	if i.Status.moving() && (t.recoverable || !i.RecoverAt.IsZero()) {
		calls = t.plan.program.pending(t.progress)
	}
	if len(calls) == 0 {
		i.RecoverAt = time.Time{}
		return
	}
	var longest time.Duration
	for _, c := range calls {
		longest = max(longest, c.timeout)
	}
	if i.RecoverAt.Before(t.now.Add(longest + after/2)) {
		i.RecoverAt = t.now.Add(longest + after).Truncate(time.Millisecond)
	}
}

// recoverable reports whether an instance may be taken up at a time.
func (i Instance) recoverable(at time.Time) bool {
	return i.Status.moving() && !i.RecoverAt.IsZero() && !i.RecoverAt.After(at)
}

// Recover takes up instances whose process seems to have died while it made their
// calls, one after the other: those whose RecoverAt has come. The calls are made
// again. Several processes may do so at a time, of which one takes an instance.
// Attach does it every quarter of Config.RecoverAfter, for up to sixteen instances
// side by side. The error is about all instances and sagas that it failed for.
func (o *Orchestrator) Recover(ctx context.Context) error {
	var errs []error
	failed := func(err error) { errs = append(errs, err) }
	o.sweep(ctx, failed, func(i Instance) {
		if err := o.takeUp(ctx, i.Saga, i.ID); err != nil {
			failed(err)
		}
	})
	return errors.Join(errs...)
}

// keepRecovering recovers until ctx ends, and waits for what it has begun.
func (o *Orchestrator) keepRecovering(ctx context.Context) {
	failed := func(err error) {
		if ctx.Err() == nil {
			o.cfg.Logger.Error("saga: could not recover, trying again", "error", err)
		}
	}
	slots := make(chan struct{}, recoveredTogether)
	var running sync.WaitGroup
	defer running.Wait()
	for {
		o.sweep(ctx, failed, func(i Instance) {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			running.Go(func() {
				defer func() { <-slots }()
				if err := o.takeUp(ctx, i.Saga, i.ID); err != nil {
					failed(err)
				}
			})
		})
		every := o.cfg.RecoverAfter / 4
		select {
		case <-time.After(every - rand.N(every/4+1)): // not all processes at once
		case <-ctx.Done():
			return
		}
	}
}

// sweep calls take for all instances that may be taken up now.
func (o *Orchestrator) sweep(ctx context.Context, failed func(error), take func(Instance)) {
	for _, name := range slices.Sorted(maps.Keys(o.plans)) {
		q := Query{Saga: name, Status: []Status{Running, Compensating}, RecoverableAt: now(), Limit: 100}
		for more := true; more && ctx.Err() == nil; {
			found, err := o.store.List(ctx, q)
			if err != nil {
				failed(fmt.Errorf("saga %q: recover: %w", name, err))
				break
			}
			for _, i := range found {
				take(i)
				q.Before, q.BeforeID = i.Updated, i.ID
			}
			more = len(found) == q.Limit
		}
	}
}

// takeUp makes the calls of an instance, unless somebody else does.
func (o *Orchestrator) takeUp(ctx context.Context, saga, id string) error {
	t, err := o.claim(ctx, saga, id)
	switch {
	case errors.Is(err, ErrNoInstance) || errors.Is(err, ErrConflict):
		return nil
	case err == nil && t != nil:
		_, err = o.drive(ctx, t)
	}
	if err != nil {
		return fmt.Errorf("saga %q: instance %q: recover: %w", saga, id, err)
	}
	return nil
}

// claim makes a transition before the calls of an instance, which one of several
// processes can commit. It returns nil for an instance that goes on.
func (o *Orchestrator) claim(ctx context.Context, saga, id string) (*transit, error) {
	i, err := o.load(ctx, saga, id, true)
	if err != nil || !i.recoverable(now()) {
		return nil, err
	}
	t, err := o.transit(ctx, i)
	if err != nil {
		return nil, err
	}
	t.key, t.note, t.recoverable = "recover", "the process that made the calls has not come back", true
	t.calls = t.plan.program.pending(t.progress)
	return t, o.commit(ctx, t, nil)
}
