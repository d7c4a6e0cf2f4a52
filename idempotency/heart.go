package idempotency

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// heart renews a claim until it is stopped, and cancels ctx when the claim is
// lost, or may be.
type heart struct {
	ctx     context.Context // of the function that holds the claim
	cancel  context.CancelCauseFunc
	beating context.Context
	still   context.CancelFunc
	done    chan struct{}
}

// startHeart starts the goroutine; stop ends it and waits.
func (g *Guard) startHeart(ctx context.Context, c Claim, since time.Time) *heart {
	h := &heart{done: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancelCause(ctx)
	h.beating, h.still = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(h.done)
		h.beat(g, c, since)
	}()
	return h
}

// stop may be called twice.
func (h *heart) stop() {
	h.still()
	<-h.done
	h.cancel(nil) // frees it; the cause of an earlier cancellation stays
}

// beat measures the lease from before each request, so it ends here before it
// ends in the store, whatever the network does and however the clocks differ.
func (h *heart) beat(g *Guard, c Claim, since time.Time) {
	lease := g.policy.Lease
	ends, limit := since.Add(lease), since.Add(g.policy.MaxHold)
	next := since.Add(lease / 3)
	var last error // of the renewals since the one that succeeded
	for {
		if !h.sleep(min(time.Until(next), time.Until(limit))) {
			return
		}
		now := time.Now()
		if !now.Before(limit) {
			h.cancel(fmt.Errorf("%w: longer than %v", ErrHeldTooLong, g.policy.MaxHold))
			return
		}
		if !now.Before(ends) {
			h.cancel(overdue(last))
			return
		}
		err := h.renew(g, c, ends, last)
		switch {
		case h.beating.Err() != nil:
			return
		case errors.Is(err, ErrLost):
			h.cancel(err)
			return
		case !time.Now().Before(ends):
			h.cancel(overdue(errors.Join(last, err)))
			return
		case err == nil:
			ends, next, last = now.Add(lease), now.Add(lease/3), nil
		default:
			last = err
			g.log(c.Key).Warn("idempotency: the claim could not be renewed, trying again", "error", err)
			next = earlier(time.Now().Add(lease/10), ends)
		}
	}
}

// renew also tells the function in time if the store does not heed the deadline.
func (h *heart) renew(g *Guard, c Claim, ends time.Time, last error) error {
	late := time.AfterFunc(time.Until(ends), func() { h.cancel(overdue(last)) })
	defer late.Stop()
	ctx, cancel := context.WithDeadline(h.beating, ends)
	defer cancel()
	return g.store.Renew(ctx, c, g.policy.Lease)
}

func overdue(err error) error {
	if err == nil {
		return fmt.Errorf("%w: it was not renewed in time", ErrLost)
	}
	return fmt.Errorf("%w: it could not be renewed in time: %w", ErrLost, err)
}

func (h *heart) sleep(d time.Duration) bool {
	timer := time.NewTimer(max(0, d))
	defer timer.Stop()
	select {
	case <-h.beating.Done():
		return false
	case <-timer.C:
		return true
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
