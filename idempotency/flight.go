package idempotency

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// flightKey tells calls apart that may share a result.
type flightKey struct {
	Key
	fingerprint string
}

// flight is a call of this guard that represents all others for its key: only it
// asks the store. done is closed when it has ended, after result was set.
type flight struct {
	done   chan struct{}
	result *kept // nil: there is none, somebody else must try
}

// Pauses between two looks at an operation that another process has claimed.
const (
	firstLook = 10 * time.Millisecond
	lastLook  = 500 * time.Millisecond
)

// work does an operation that has been claimed.
type work func(ctx context.Context, c Claim) (kept, error)

// run does the operation, or returns the result that it has, or waits for it.
func (g *Guard) run(ctx context.Context, c call, fn work) (result kept, replayed bool, err error) {
	until := time.Now().Add(c.wait)
	key := flightKey{c.key, string(c.fingerprint)}
	for {
		f, first := g.board(key)
		if first {
			return g.lead(ctx, c, until, f, key, fn)
		}
		if err := g.await(ctx, c, f, until); err != nil {
			return kept{}, false, err
		}
		if f.result != nil {
			return *f.result.copy(), true, nil
		}
	}
}

func (g *Guard) board(k flightKey) (f *flight, first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if f, ok := g.flights[k]; ok {
		return f, false
	}
	f = &flight{done: make(chan struct{})}
	g.flights[k] = f
	return f, true
}

func (g *Guard) land(k flightKey, f *flight) {
	g.mu.Lock()
	delete(g.flights, k)
	g.mu.Unlock()
	close(f.done)
}

// await waits until f has landed. The bound is that of the caller's own call.
func (g *Guard) await(ctx context.Context, c call, f *flight, until time.Time) error {
	timer := time.NewTimer(max(0, time.Until(until)))
	defer timer.Stop()
	select {
	case <-f.done:
		return nil
	case <-timer.C:
		return &InProgressError{Key: c.key, After: g.policy.Lease}
	case <-ctx.Done():
		return fmt.Errorf("idempotency: wait for %s: %w", c.key, context.Cause(ctx))
	}
}

func (g *Guard) lead(ctx context.Context, c call, until time.Time, f *flight, key flightKey, fn work) (result kept, replayed bool, err error) {
	defer g.land(key, f) // also on a panic of fn
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		asked := time.Now()
		request := g.request(c, asked)
		r, err := g.store.Claim(ctx, request)
		if err != nil {
			return kept{}, false, err
		}
		switch r.State {
		case StateClaimed:
			result, err = g.hold(ctx, c, r.Claim, asked, request.Keep, fn)
			if err == nil || errors.Is(err, ErrUnrecorded) {
				f.result = result.copy()
			}
			return result, false, err
		case StateDone:
			if result, err = decodeKept(r.Result); err != nil {
				return kept{}, false, refused(c.key, err)
			}
			f.result = result.copy()
			return result, true, nil
		case StateMismatch:
			return kept{}, false, refused(c.key, ErrMismatch)
		case StateAbsent:
			return kept{}, false, refused(c.key, fmt.Errorf("%w (issued %v ago, kept for %v)", ErrTooOld, asked.Sub(c.issued).Round(time.Second), g.policy.Retention))
		case StateHeld:
			if err := look(ctx, c.key, r.Remaining, pause, until); err != nil {
				return kept{}, false, err
			}
		default:
			return kept{}, false, fmt.Errorf("idempotency: claim %s: the store answered %v", c.key, r.State)
		}
	}
}

// look pauses before the next look at an operation that is held elsewhere.
func look(ctx context.Context, k Key, remaining, pause time.Duration, until time.Time) error {
	left := time.Until(until)
	if left <= 0 {
		return &InProgressError{Key: k, After: max(remaining, firstLook)}
	}
	pause = pause/2 + rand.N(pause) // so that those who wait don't ask together
	timer := time.NewTimer(min(pause, max(remaining, time.Millisecond), left))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("idempotency: wait for %s: %w", k, context.Cause(ctx))
	}
}
