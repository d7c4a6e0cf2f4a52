package sqlbus

import (
	"context"
	"math/rand/v2"
	"time"
)

// jitter returns between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// poke signals a channel with a buffer of one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wait returns when poked or after d, and false when ctx ended.
func wait(ctx context.Context, poked <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-poked:
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}
