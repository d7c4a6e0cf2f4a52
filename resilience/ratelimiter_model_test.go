package resilience

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// modelBucket is a rate limiter as a bucket of tokens, each worth the time in
// which it drips in. Calls that wait have taken theirs in advance.
type modelBucket struct {
	interval, size, level, at int64

	pocket, left int64 // tokens that may be taken out in advance, and that have been
}

func newModelBucket(burst, pocket int, interval int64) *modelBucket {
	size := int64(burst-pocket) * interval
	return &modelBucket{interval: interval, size: size, level: size, at: now(), pocket: int64(pocket), left: int64(pocket)}
}

// take returns how long a call has to wait, and takes its token if that is not
// longer than most.
func (m *modelBucket) take(most int64) (wait int64) {
	m.level = min(m.size, m.level+now()-m.at)
	m.at = now()
	if m.left > 0 {
		m.left--
		return 0
	}
	if wait = max(0, m.interval-m.level); wait <= most {
		m.level -= m.interval
	}
	if m.level >= m.pocket*m.interval && wait == 0 {
		m.left = m.pocket
		m.level -= m.pocket * m.interval
	}
	return wait
}

// modelLimiter is a limiter with a pocket, and one without it that has let the
// same calls through.
type modelLimiter struct{ pocketed, exact *modelBucket }

// take fails where the pocket makes more of a difference than is in it.
func (m modelLimiter) take(most int64) (wait int64, err error) {
	wait = m.pocketed.take(most)
	least := m.exact.take(-1)
	if wait < least || wait > least+m.pocketed.pocket*m.exact.interval {
		err = fmt.Errorf("a wait of %d ns, and of %d without the pocket", wait, least)
	}
	if wait <= most {
		m.exact.level -= m.exact.interval
	}
	return wait, err
}

type limiterPlan struct {
	cfg   RateLimiterConfig
	steps []limiterStep
}

type limiterStep struct {
	kind, which    int
	pause, timeout time.Duration
}

func planLimiter(rt *rapid.T) limiterPlan {
	cfg := RateLimiterConfig{
		Calls:   rapid.IntRange(1, 50).Draw(rt, "calls"),
		Per:     rapid.SampledFrom([]time.Duration{100 * time.Nanosecond, time.Second, time.Minute}).Draw(rt, "per"),
		Burst:   rapid.SampledFrom([]int{0, 1, 2, 10, 64, 100, 320}).Draw(rt, "burst"),
		MaxWait: time.Duration(rapid.SampledFrom([]int{0, 1, 5}).Draw(rt, "max wait")),
	}
	interval := cfg.Per / time.Duration(cfg.Calls)
	cfg.MaxWait *= interval
	return limiterPlan{cfg, stepsOf(func(rt *rapid.T) limiterStep {
		return limiterStep{
			kind:    rapid.IntRange(0, 99).Draw(rt, "kind"),
			which:   rapid.IntRange(0, 99).Draw(rt, "which"),
			pause:   time.Duration(rapid.Int64Range(0, int64(2*interval)).Draw(rt, "pause")),
			timeout: time.Duration(rapid.Int64Range(1, int64(4*interval)).Draw(rt, "timeout")),
		}
	}).Draw(rt, "steps")}
}

// limited is a call and what the model says of it.
type limited struct {
	cancel     context.CancelFunc
	wait, due  int64 // the model: until it begins, and when that is
	rejected   bool
	cancelled  int64
	begun      int64 // what happened
	err        error
	ended      int64
	timeoutErr bool
	modelErr   error
}

func playLimiter(p limiterPlan) (int, error) {
	l, origin := Must(NewRateLimiter(p.cfg)), now()
	cfg := l.pace.Load().cfg
	interval := int64(cfg.Per) / int64(cfg.Calls)
	m := modelLimiter{newModelBucket(cfg.Burst, max(0, min(cfg.Burst/32, 64)-1), interval), newModelBucket(cfg.Burst, 0, interval)}
	var calls []*limited
	for _, s := range p.steps {
		switch {
		case s.kind < 40:
			time.Sleep(s.pause)
		case s.kind < 50 && len(calls) > 0:
			if c := calls[s.which%len(calls)]; c.cancelled == 0 {
				c.cancel()
				c.cancelled = now()
			}
		case s.kind >= 97 && cfg.Burst > 10: // many at once
			for range s.which {
				calls = append(calls, startLimited(l, m, s, int64(cfg.MaxWait)))
			}
		case s.kind >= 95:
			time.Sleep(time.Duration(s.which) * s.pause)
		default:
			calls = append(calls, startLimited(l, m, s, int64(cfg.MaxWait)))
		}
	}
	time.Sleep(time.Duration(6 * interval))
	synctest.Wait()
	var begun []int64
	for i, c := range calls {
		if err := c.check(); err != nil {
			return len(p.steps), fmt.Errorf("call %d, at %d ns: %w", i, c.due-c.wait-origin, err)
		}
		if c.begun > 0 {
			begun = append(begun, c.begun)
		}
	}
	return len(p.steps), withinRate(begun, int64(cfg.Burst), interval)
}

func startLimited(l *RateLimiter, m modelLimiter, s limiterStep, most int64) *limited {
	c := &limited{}
	ctx, cancel := context.WithCancel(context.Background())
	if s.kind < 60 {
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
		most = min(most, int64(s.timeout))
	}
	c.cancel = cancel
	c.wait, c.modelErr = m.take(most)
	c.rejected, c.due = c.wait > most, now()+c.wait
	// A deadline and a turn in the same moment go either way.
	c.timeoutErr = s.kind < 60 && c.wait == int64(s.timeout)
	go func() {
		defer cancel()
		c.err = l.Do(ctx, func(context.Context) error {
			c.begun = now()
			return nil
		})
		c.ended = now()
	}()
	synctest.Wait()
	return c
}

// check compares what has happened with what should have.
func (c *limited) check() error {
	var rejected *RejectedError
	switch {
	case c.modelErr != nil:
		return c.modelErr
	case c.rejected:
		if !errors.As(c.err, &rejected) || rejected.RetryAfter() != time.Duration(c.wait) || c.begun != 0 {
			return fmt.Errorf("got %w, want a rejection for %v", c.err, time.Duration(c.wait))
		}
	case c.cancelled > 0 && c.cancelled <= c.due && c.begun == 0:
		if !errors.Is(c.err, context.Canceled) || c.ended != c.cancelled || !IsRejected(c.err) {
			return fmt.Errorf("got %w after %d ns, want the end of its context", c.err, c.ended-c.cancelled)
		}
	case c.timeoutErr && c.begun == 0:
		if !errors.Is(c.err, context.DeadlineExceeded) {
			return fmt.Errorf("got %w, want the end of its context", c.err)
		}
	case c.err != nil || c.begun != c.due:
		return fmt.Errorf("began at %d, want %d: %w", c.begun, c.due, c.err)
	}
	return nil
}

// withinRate checks that there are at most burst + t/interval calls in any t.
func withinRate(begun []int64, burst, interval int64) error {
	slices.Sort(begun)
	for i, from := range begun {
		for j := i; j < min(len(begun), i+500); j++ {
			if n := int64(j - i + 1); n > burst+(begun[j]-from)/interval {
				return fmt.Errorf("%d calls within %v", n, time.Duration(begun[j]-from))
			}
		}
	}
	return nil
}

func TestRateLimiterModel(t *testing.T) { checkModel(t, modelSteps, planLimiter, playLimiter) }
