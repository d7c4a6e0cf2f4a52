package resilience

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// modelBreaker is what a circuit breaker should do, one call at a time, in the
// plainest form.
type modelBreaker struct {
	cfg   CircuitBreakerConfig
	state State
	stay  int   // the number of the period in this state
	end   int64 // open: probes from then on; half-open: new probes from then on

	calls            []modelCall // closed
	admitted, passed int         // half-open
	opened, rejected int64
}

type modelCall struct {
	step         int64
	failed, slow bool
}

func (m *modelBreaker) to(s State) {
	m.state, m.stay, m.calls, m.admitted, m.passed = s, m.stay+1, nil, 0, 0
	m.end = now() + int64(m.cfg.OpenFor)
	if s == Open {
		m.opened++
	}
}

func (m *modelBreaker) admit() bool {
	if m.state == Open && now() >= m.end || m.state == HalfOpen && m.admitted == m.cfg.Probes && now() >= m.end {
		m.to(HalfOpen)
	}
	if m.state == Closed {
		return true
	}
	if m.state == HalfOpen && m.admitted < m.cfg.Probes {
		m.admitted++
		return true
	}
	m.rejected++
	return false
}

func (m *modelBreaker) finish(stay int, begun int64, err error) {
	var call modelCall
	switch {
	case stay != m.stay:
		return
	case errors.Is(err, context.Canceled), errors.Is(err, errWithoutTurn):
		m.admitted--
		return
	case err != nil:
		call.failed = !errors.Is(err, errPermanent)
	}
	call.slow = m.cfg.SlowCall > 0 && now()-begun >= int64(m.cfg.SlowCall)
	bad := call.failed || call.slow
	switch {
	case m.state == HalfOpen && bad:
		m.to(Open)
	case m.state == HalfOpen:
		if m.passed++; m.passed == m.cfg.Probes {
			m.to(Closed)
		}
	default:
		call.step = m.step()
		if m.calls = append(m.calls, call); bad && m.exceeded() {
			m.to(Open)
		}
	}
}

func (m *modelBreaker) step() int64 {
	return now() / max(1, int64(m.cfg.WindowPeriod)/10)
}

func (m *modelBreaker) exceeded() bool {
	var total, failures, slows, row int
	for i, c := range m.calls {
		if m.cfg.WindowCalls > 0 && i < len(m.calls)-m.cfg.WindowCalls || m.cfg.WindowPeriod > 0 && c.step <= m.step()-10 {
			continue
		}
		total++
		row++
		if c.failed {
			failures++
		} else {
			row = 0
		}
		if c.slow {
			slows++
		}
	}
	if m.cfg.Failures > 0 {
		return row >= m.cfg.Failures
	}
	return total >= m.cfg.MinCalls && (m.cfg.FailureRate > 0 && float64(failures)/float64(total) >= m.cfg.FailureRate ||
		m.cfg.SlowRate > 0 && float64(slows)/float64(total) >= m.cfg.SlowRate)
}

// last counts the calls of the last step.
func (m *modelBreaker) last() (calls, failures int) {
	for _, c := range m.calls {
		if c.step == m.step() {
			calls++
			if c.failed {
				failures++
			}
		}
	}
	return calls, failures
}

var errPermanent = AsPermanent(errors.New("no such thing"))

// outcomes of calls; the last one is a panic.
var modelOutcomes = []error{nil, nil, nil, errDown, errDown, AsThrottled(errDown, time.Second), errPermanent, context.Canceled, errWithoutTurn, errPanic}

var errPanic = errors.New("panic")

type breakerPlan struct {
	cfg   CircuitBreakerConfig
	steps []breakerStep
}

type breakerStep struct {
	kind, which int
	outcome     error
	takes       time.Duration
}

func planBreaker(rt *rapid.T) breakerPlan {
	cfg := CircuitBreakerConfig{
		OpenFor: rapid.SampledFrom([]time.Duration{10 * time.Millisecond, time.Second}).Draw(rt, "open for"),
		Probes:  rapid.IntRange(1, 3).Draw(rt, "probes"),
	}
	switch rapid.SampledFrom([]string{"row", "calls", "period"}).Draw(rt, "window") {
	case "row":
		cfg.Failures = rapid.IntRange(1, 4).Draw(rt, "failures")
	case "calls":
		cfg.WindowCalls = rapid.IntRange(1, 20).Draw(rt, "calls")
	case "period":
		cfg.WindowPeriod = rapid.SampledFrom([]time.Duration{10 * time.Millisecond, time.Second, 7 * time.Second}).Draw(rt, "period")
	}
	if cfg.Failures == 0 {
		cfg.MinCalls = rapid.IntRange(1, 8).Draw(rt, "min calls")
		cfg.FailureRate = rapid.SampledFrom([]float64{0.07, 0.3, 0.5, 1}).Draw(rt, "failure rate")
		cfg.SlowCall = rapid.SampledFrom([]time.Duration{0, 0, 30 * time.Millisecond}).Draw(rt, "slow call")
	}
	durations := rapid.SampledFrom([]time.Duration{0, 0, time.Nanosecond, time.Millisecond, 29 * time.Millisecond, 31 * time.Millisecond, 300 * time.Millisecond, 1100 * time.Millisecond})
	return breakerPlan{cfg, stepsOf(func(rt *rapid.T) breakerStep {
		return breakerStep{
			kind:    rapid.IntRange(0, 99).Draw(rt, "kind"),
			which:   rapid.IntRange(0, 99).Draw(rt, "which"),
			outcome: rapid.SampledFrom(modelOutcomes).Draw(rt, "outcome"),
			takes:   durations.Draw(rt, "takes"),
		}
	}).Draw(rt, "steps")}
}

// modelRun plays steps to a breaker and to the model.
type modelRun struct {
	b       *CircuitBreaker
	m       *modelBreaker
	overlap []overlapping
}

type overlapping struct {
	*underWay
	stay  int
	begun int64
}

func playBreaker(p breakerPlan) (int, error) {
	cfg, err := p.cfg.complete()
	if err != nil {
		return 0, err
	}
	r := &modelRun{b: Must(NewCircuitBreaker(p.cfg)), m: &modelBreaker{cfg: cfg}}
	defer func() {
		for _, o := range r.overlap {
			_ = o.end(nil)
		}
	}()
	for i, s := range p.steps {
		if err := r.step(s); err != nil {
			return i + 1, fmt.Errorf("step %d, %+v: %w", i, s, err)
		}
		want := CircuitBreakerStats{State: r.m.state, Opened: r.m.opened, Rejected: r.m.rejected}
		if got := r.b.Stats(); got != want {
			return i + 1, fmt.Errorf("step %d, %+v: got %+v, want %+v", i, s, got, want)
		}
		if err := r.counted(); err != nil {
			return i + 1, fmt.Errorf("step %d, %+v: %w", i, s, err)
		}
	}
	return len(p.steps), nil
}

func (r *modelRun) step(s breakerStep) error {
	switch {
	case s.kind < 2:
		r.b.Isolate()
		r.m.to(Isolated)
	case s.kind < 5:
		r.b.Close()
		r.m.to(Closed)
	case s.kind < 20:
		time.Sleep(s.takes)
	case s.kind < 24: // many at once, which go well or are turned away
		for range s.which + 30 {
			if err := r.call(breakerStep{}); err != nil {
				return err
			}
		}
	case s.kind < 28: // until the last moment, or the first one after it
		time.Sleep(time.Duration(r.m.end - now() - int64(s.which%2)))
	case s.kind < 35 && len(r.overlap) < 5:
		return r.begin()
	case s.kind < 50 && len(r.overlap) > 0:
		i := s.which % len(r.overlap)
		o := r.overlap[i]
		r.overlap = append(r.overlap[:i], r.overlap[i+1:]...)
		if errors.Is(s.outcome, errPanic) {
			s.outcome = errDown
		}
		_ = o.end(s.outcome)
		r.m.finish(o.stay, o.begun, s.outcome)
	default:
		return r.call(s)
	}
	return nil
}

// counted compares the calls of the last step in a window of time.
func (r *modelRun) counted() error {
	w, ok := r.b.period.Load().window.(*lastPeriod)
	if !ok {
		return nil
	}
	step := r.m.step()
	calls, failures := w.buckets[step%buckets].calls.get(step)
	if wantCalls, wantFailures := r.m.last(); calls != wantCalls || failures != wantFailures {
		return fmt.Errorf("%d calls and %d failures in step %d, want %d and %d", calls, failures, step, wantCalls, wantFailures)
	}
	return nil
}

// call makes a call that no other begins beside.
func (r *modelRun) call(s breakerStep) error {
	admitted, stay, begun := r.m.admit(), r.m.stay, now()
	called := false
	err := catch(func() error {
		return r.b.Do(context.Background(), func(context.Context) error {
			called = true
			time.Sleep(s.takes)
			if errors.Is(s.outcome, errPanic) {
				panic(errPanic)
			}
			return s.outcome
		})
	})
	if called != admitted {
		return fmt.Errorf("called %v, want %v", called, admitted)
	}
	if admitted {
		r.m.finish(stay, begun, s.outcome)
		return nil
	}
	return r.refused(err)
}

func (r *modelRun) begin() error {
	admitted := r.m.admit()
	u := begin(context.Background(), r.b)
	if u.running() != admitted {
		return fmt.Errorf("running %v, want %v", u.running(), admitted)
	}
	if admitted {
		r.overlap = append(r.overlap, overlapping{u, r.m.stay, now()})
		return nil
	}
	return r.refused(<-u.result)
}

// refused checks the error of a call that the breaker turned away.
func (r *modelRun) refused(err error) error {
	var open *OpenError
	if !errors.As(err, &open) || open.State != r.m.state || !IsRejected(err) {
		return fmt.Errorf("refused with %w, want state %v", err, r.m.state)
	}
	if left := time.Duration(r.m.end - now()); open.State == Open && open.RetryAfter() != left {
		return fmt.Errorf("retry after %v, want %v", open.RetryAfter(), left)
	}
	return nil
}

// catch turns a panic with an error into that error.
func catch(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = v.(error)
		}
	}()
	return f()
}

func TestCircuitBreakerModel(t *testing.T) { checkModel(t, modelSteps, planBreaker, playBreaker) }
