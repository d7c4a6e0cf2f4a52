package idempotency

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/internal/dialect"
)

// hold runs fn while it keeps the claim alive, and then completes or releases
// it. since is a time before the claim was asked for. The result is as it is
// kept.
func (g *Guard) hold(ctx context.Context, by call, c Claim, since time.Time, keep time.Duration, fn work) (result kept, err error) {
	if by.detached {
		ctx = context.WithoutCancel(ctx)
	}
	h := g.startHeart(context.WithValue(ctx, claimKey{}, c), c, since)
	returned := false
	defer func() {
		if !returned { // a panic, or runtime.Goexit as in a failing test
			h.stop()
			g.release(ctx, c)
		}
	}()
	result, err = fn(h.ctx, c)
	returned = true
	if err == nil {
		// The heart beats on meanwhile: the effect has happened, nobody should repeat it.
		result = result.bounded(g.policy.MaxResult)
		err = g.complete(ctx, c, result, keep)
		h.stop()
		return result, err
	}
	if h.stop(); errors.Is(context.Cause(h.ctx), ErrLost) {
		err = fmt.Errorf("idempotency: %s: %w: %w", c.Key, context.Cause(h.ctx), err)
	}
	g.release(ctx, c)
	return result, err
}

// complete tells the store until it answers, for as long as a lease, even if
// ctx has ended: an effect that is not recorded would happen again.
func (g *Guard) complete(ctx context.Context, c Claim, result kept, keep time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.policy.Lease)
	defer cancel()
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		err := g.store.Complete(ctx, c, result.encode(), keep)
		if err == nil || errors.Is(err, ErrLost) {
			return err
		}
		if !dialect.Sleep(ctx, pause) {
			g.log(c.Key).Error("idempotency: the operation was done, but could not be recorded; duplicates may do it again", "error", err)
			return fmt.Errorf("idempotency: %s: %w: %w", c.Key, ErrUnrecorded, err)
		}
	}
}

// release gives the claim back. If that fails its lease ends by itself.
func (g *Guard) release(ctx context.Context, c Claim) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(g.policy.Lease/3, time.Second))
	defer cancel()
	if err := g.store.Release(ctx, c); err != nil && !errors.Is(err, ErrLost) {
		g.log(c.Key).Warn("idempotency: the claim could not be released, others wait for its lease to end", "error", err)
	}
}

type claimKey struct{}

// ClaimFrom returns the claim within which the context's function runs. It is
// for handlers of HTTP and gRPC, which get none as an argument.
func ClaimFrom(ctx context.Context) (c Claim, ok bool) {
	c, ok = ctx.Value(claimKey{}).(Claim)
	return c, ok
}
