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

// modelQueue is a bulkhead as two lists of calls, oldest first.
type modelQueue struct {
	cfg              BulkheadConfig
	running, waiting []*queued
}

// queued is a call, and in want what the model says has become of it.
type queued struct {
	*underWay
	want  string
	until time.Time // as long as it may wait
}

func (m *modelQueue) begin(c *queued) {
	switch c.until = time.Now().Add(m.cfg.MaxWait); {
	case len(m.running) < m.cfg.Concurrency:
		c.want, m.running = "running", append(m.running, c)
	case len(m.waiting) < m.cfg.Queue:
		c.want, m.waiting = "waiting", append(m.waiting, c)
	default:
		c.want = "rejected"
	}
}

func (m *modelQueue) end(c *queued, want string) {
	c.want = want
	m.running = slices.DeleteFunc(m.running, func(o *queued) bool { return o == c })
	m.waiting = slices.DeleteFunc(m.waiting, func(o *queued) bool { return o == c })
	if len(m.waiting) > 0 && len(m.running) < m.cfg.Concurrency {
		next := m.waiting[0]
		next.want, m.running, m.waiting = "running", append(m.running, next), m.waiting[1:]
	}
}

func (m *modelQueue) pass() {
	for len(m.waiting) > 0 && !m.waiting[0].until.After(time.Now()) {
		m.end(m.waiting[0], "rejected")
	}
}

// state is what has really become of a call.
func (c *queued) state() string {
	select {
	case err := <-c.result:
		c.result <- err
		switch {
		case errors.Is(err, ErrBulkheadFull) && !c.running():
			return "rejected"
		case errors.Is(err, context.Canceled) && IsRejected(err) && !c.running():
			return "cancelled"
		case err == nil && c.running():
			return "done"
		}
		return err.Error()
	default:
	}
	if c.running() {
		return "running"
	}
	return "waiting"
}

type queuePlan struct {
	cfg   BulkheadConfig
	steps []queueStep
}

type queueStep struct {
	kind, which int
	pause       time.Duration
}

func planQueue(rt *rapid.T) queuePlan {
	return queuePlan{BulkheadConfig{
		Concurrency: rapid.IntRange(1, 4).Draw(rt, "concurrency"),
		Queue:       rapid.IntRange(0, 5).Draw(rt, "queue"),
		MaxWait:     10 * time.Millisecond,
	}, stepsOf(func(rt *rapid.T) queueStep {
		return queueStep{
			kind:  rapid.IntRange(0, 99).Draw(rt, "kind"),
			which: rapid.IntRange(0, 99).Draw(rt, "which"),
			pause: time.Duration(rapid.IntRange(0, 12).Draw(rt, "pause")) * time.Millisecond,
		}
	}).Draw(rt, "steps")}
}

func playQueue(p queuePlan) (int, error) {
	b, m := Must(NewBulkhead(p.cfg)), &modelQueue{cfg: p.cfg}
	var rejected int64
	defer func() {
		for _, c := range append(m.running, m.waiting...) {
			c.cancel()
			c.finish <- nil
		}
	}()
	for i, s := range p.steps {
		touched := slices.Concat(m.running, m.waiting)
		switch all := len(touched); {
		case s.kind < 15:
			time.Sleep(s.pause)
			m.pass()
		case s.kind < 45 && len(m.running) > 0:
			c := m.running[s.which%len(m.running)]
			c.finish <- nil
			m.end(c, "done")
		case s.kind < 55 && all > 0:
			c := touched[s.which%all]
			if c.cancel(); c.want == "waiting" {
				m.end(c, "cancelled")
			}
		default:
			c := &queued{}
			m.begin(c)
			c.underWay = begin(context.Background(), b)
			touched = append(touched, c)
		}
		synctest.Wait()
		for _, c := range touched {
			if c.want == "rejected" {
				rejected++
			}
			if got := c.state(); got != c.want {
				return i + 1, fmt.Errorf("step %d, %+v: a call is %s, want %s", i, s, got, c.want)
			}
		}
		want := BulkheadStats{Running: len(m.running), Waiting: len(m.waiting), Rejected: rejected}
		if got := b.Stats(); got != want || got.Running > p.cfg.Concurrency {
			return i + 1, fmt.Errorf("step %d, %+v: got %+v, want %+v", i, s, got, want)
		}
	}
	return len(p.steps), nil
}

func TestBulkheadModel(t *testing.T) { checkModel(t, modelSteps, planQueue, playQueue) }
