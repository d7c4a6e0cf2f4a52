package saga

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrStuckAgain is in the chain of the error of RetryAll when too many of the
// instances that it retried got stuck again: what they need is not mended.
var ErrStuckAgain = errors.New("retried instances got stuck again")

// RetryAll retries the stuck instances of a saga, the one that is stuck for
// longest first, one after the other and at most perSecond of them a second, so
// that what has just recovered is not hit by all of them at once. It gives up,
// with ErrStuckAgain, when five in a row are stuck again at once. It returns how
// many it retried.
func (o *Orchestrator) RetryAll(ctx context.Context, saga string, perSecond int) (retried int, err error) {
	if perSecond < 1 {
		return 0, fmt.Errorf("saga %q: retry all: perSecond must be at least 1, got %d", saga, perSecond)
	}
	stuck, err := o.stuck(ctx, saga)
	if err != nil {
		return 0, err
	}
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	again := 0
	for n, i := range stuck {
		if n > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return retried, fmt.Errorf("saga %q: retry all: %w after %d of %d", saga, context.Cause(ctx), retried, len(stuck))
			}
		}
		if err := o.Retry(ctx, saga, i.ID); err != nil {
			if errors.Is(err, ErrNotPossible) || errors.Is(err, ErrNoInstance) {
				continue // somebody else has mended it meanwhile
			}
			return retried, err
		}
		retried++
		if now, err := o.store.Load(ctx, saga, i.ID); err == nil && now.Status == Stuck {
			again++
		} else {
			again = 0
		}
		if again == 5 {
			return retried, fmt.Errorf("saga %q: retry all: stopped after %d of %d: %w", saga, retried, len(stuck), ErrStuckAgain)
		}
	}
	return retried, nil
}

// stuck returns all stuck instances, the oldest first.
func (o *Orchestrator) stuck(ctx context.Context, saga string) ([]Instance, error) {
	var all []Instance
	q := Query{Saga: saga, Status: []Status{Stuck}, Limit: 1000}
	for {
		page, err := o.store.List(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("saga %q: list stuck instances: %w", saga, err)
		}
		all = append(all, page...)
		if len(page) < q.Limit {
			slices.Reverse(all)
			return all, nil
		}
		last := page[len(page)-1]
		q.Before, q.BeforeID = last.Updated, last.ID
	}
}
