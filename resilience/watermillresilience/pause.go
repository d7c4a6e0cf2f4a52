package watermillresilience

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/millrace-go/millrace/resilience"
)

// Pauses of a message that the policy turns away.
const (
	shortestPause = 10 * time.Millisecond
	longestPause  = 30 * time.Second // somebody may close an open breaker by hand
)

// pausing is the wait of one message for its policy.
type pausing struct {
	most  time.Duration
	until time.Time // set by the first wait
	pause time.Duration
}

// wait reports false when the error is to be returned: there has been enough of
// waiting, or ctx ended. A deadline of ctx is no reason to return before it: what
// is returned comes again at once.
func (p *pausing) wait(ctx context.Context, err error) bool {
	now := time.Now()
	if p.until.IsZero() {
		p.until = now.Add(p.most)
	}
	left := p.until.Sub(now)
	if left <= 0 {
		return false
	}
	after, _ := resilience.RetryAfter(err)
	p.pause = max(shortestPause, min(2*p.pause, time.Second))
	d := min(max(p.pause, after), longestPause)
	t := time.NewTimer(min(d+rand.N(d/4+1), left))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// turnedAway reports whether the last thing a policy did was to turn the call
// away, not for good.
func turnedAway(err error) bool {
	if err == nil {
		return false
	}
	for gaveUp := (*resilience.RetryError)(nil); errors.As(err, &gaveUp); {
		err = gaveUp.Err
	}
	return resilience.IsRejected(err) && resilience.Classify(err) != resilience.Permanent
}
