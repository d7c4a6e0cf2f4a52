package resilience

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// modelBudget is a budget in thousandths, and what was paid in and out of it.
type modelBudget struct{ ratio, burst, saved, calls, retries int }

func (m *modelBudget) earn() { m.calls, m.saved = m.calls+1, min(m.burst, m.saved+m.ratio) }

func (m *modelBudget) spend() bool {
	if m.saved < 1000 {
		return false
	}
	m.saved -= 1000
	m.retries++
	return true
}

func (m *modelBudget) refund() { m.retries, m.saved = m.retries-1, min(m.burst, m.saved+1000) }

// call is a Retry's, of a function that fails so often; pauses are those it sits
// out before its context ends. It returns how often the function is called.
func (m *modelBudget) call(attempts, failures, pauses int) (calls int) {
	m.earn()
	for n := 1; ; n++ {
		if n > failures || n == attempts || !m.spend() {
			return n
		}
		if n > pauses {
			m.refund()
			return n
		}
	}
}

type budgetPlan struct {
	cfg      BudgetConfig
	attempts int
	steps    []budgetStep
}

type budgetStep struct {
	failures, pauses int
	hedged           bool
}

func planBudget(rt *rapid.T) budgetPlan {
	return budgetPlan{BudgetConfig{
		Ratio: rapid.SampledFrom([]float64{0.001, 0.1, 0.2, 0.57, 1}).Draw(rt, "ratio"),
		Burst: rapid.SampledFrom([]int{1, 3, 100}).Draw(rt, "burst"),
	}, rapid.IntRange(1, 5).Draw(rt, "attempts"), stepsOf(func(rt *rapid.T) budgetStep {
		return budgetStep{
			failures: rapid.IntRange(0, 6).Draw(rt, "failures"),
			pauses:   rapid.IntRange(0, 9).Draw(rt, "pauses"),
			hedged:   rapid.IntRange(0, 9).Draw(rt, "hedged") == 0,
		}
	}).Draw(rt, "steps")}
}

func playBudget(p budgetPlan) (int, error) {
	budget := Must(NewBudget(p.cfg))
	m := &modelBudget{ratio: int(p.cfg.Ratio*1000 + 0.5), burst: p.cfg.Burst * 1000, saved: p.cfg.Burst * 1000}
	retry := Must(NewRetry(RetryConfig{Attempts: p.attempts, Budget: budget, Backoff: Backoff{Shape: Fixed, Base: time.Millisecond, Jitter: -1}}))
	hedge := Must(NewHedge(HedgeConfig{After: time.Millisecond, Budget: budget}))
	for i, s := range p.steps {
		var got, want int
		if s.hedged {
			got, want = hedgedCall(hedge), m.call(2, 1, 1)
		} else {
			got, want = retriedCall(retry, s), m.call(p.attempts, s.failures, s.pauses)
		}
		if got != want {
			return i + 1, fmt.Errorf("step %d, %+v: %d calls, want %d", i, s, got, want)
		}
		if budget.Left() != m.saved/1000 {
			return i + 1, fmt.Errorf("step %d, %+v: %d left, want %d", i, s, budget.Left(), m.saved/1000)
		}
		if most := float64(p.cfg.Burst) + p.cfg.Ratio*float64(m.calls); float64(m.retries) > most+1e-6 {
			return i + 1, fmt.Errorf("step %d: %d retries of %d calls", i, m.retries, m.calls)
		}
	}
	return len(p.steps), nil
}

// retriedCall returns how often the function was called.
func retriedCall(retry *Retry, s budgetStep) (calls int) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	time.AfterFunc(time.Duration(s.pauses)*time.Millisecond+time.Microsecond, func() { cancel(errors.New("enough")) })
	_ = retry.Do(ctx, func(context.Context) error {
		if calls++; calls <= s.failures {
			return errDown
		}
		return nil
	})
	return calls
}

// hedgedCall is one that is slow, unless it is hedged.
func hedgedCall(hedge *Hedge) (calls int) {
	before := hedge.Stats().Hedged
	_ = hedge.Do(context.Background(), func(context.Context) error {
		time.Sleep(1500 * time.Microsecond)
		return nil
	})
	return 1 + int(hedge.Stats().Hedged-before)
}

func TestBudgetModel(t *testing.T) { checkModel(t, modelSteps, planBudget, playBudget) }

// A Retry and a Hedge with one budget are not paid twice for a call, nor is the
// Hedge paid for retries.
func TestACallPaysASharedBudgetOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budget := Must(NewBudget(BudgetConfig{Burst: 10, Ratio: 0.2}))
		hedge := Must(NewHedge(HedgeConfig{After: time.Second, Budget: budget}))
		retry := Must(NewRetry(RetryConfig{Attempts: 10, Budget: budget, Backoff: plain}))
		attempts := 0
		for _, p := range []Policy{
			Must(NewPipeline("", retry, hedge)),
			Must(NewPipeline("", retry, Measure(Must(NewPipeline("", hedge)), func(context.Context, time.Duration, error) {}))),
		} {
			for range 500 {
				_ = p.Do(t.Context(), func(context.Context) error { attempts++; return errDown })
			}
		}
		require.LessOrEqual(t, attempts, 1000+10+200)
		require.Greater(t, attempts, 1000+200)
	})
}
