package saga

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-go/millrace/eventbus"
)

// undoPrefix begins the keys of calls and messages of compensations.
const undoPrefix = "undo:"

// stepOf returns the key of the step that an action's or a compensation's key is
// about.
func stepOf(key string) string { return strings.TrimPrefix(key, undoPrefix) }

// turnBack begins to compensate. What is under way may have been done, but for
// calls that have not been made yet. A call that is being made goes on, and undo
// waits for it: its effect could come after its compensation.
func (p *stepProgram) turnBack(t *transit, why string) {
	t.instance.Status, t.instance.Error = Compensating, why
	for _, c := range t.calls {
		switch s := t.progress.Steps[c.key]; {
		case s == nil || s.Status != calling:
		case s.Attempt == 1:
			s.Status, s.Error = failed, "not called"
		default:
			s.Status = unknown
		}
	}
	for key, s := range t.progress.Steps {
		switch {
		case s.Status == calling && p.find(key) != nil:
			t.recoverable = true
		case s.Status.inFlight():
			s.Status, s.Due = unknown, time.Time{}
		}
	}
	t.calls = nil
}

// undo compensates one step after the other.
func (p *stepProgram) undo(t *transit) {
	keys := slices.Clone(t.progress.Order)
	if !p.inOrder {
		slices.Reverse(keys)
	}
	for _, key := range keys {
		s, n := t.progress.Steps[key], p.find(key)
		if n != nil && (s.Status == done || s.Status == unknown) {
			s.Attempt, s.Error, s.Done = 0, "", s.Status == done
			p.undoAttempt(t, n, key, s)
		}
		if s.Status == calling || s.Status.undoing() || t.instance.Status == Stuck {
			return
		}
	}
	t.end(Compensated)
}

func (p *stepProgram) undoAttempt(t *transit, n *node, key string, s *stepState) {
	s.Attempt++
	s.Due = time.Time{}
	switch {
	case n.do.undoesItself:
		t.compensateChild(n.do, s.asked(key), s.Done)
		s.Status, s.Due = undoWaiting, t.in(n.undoTimeout)
	case n.compensate.kind == send:
		if err := t.emit(n.compensate, undoPrefix+s.asked(key), strconv.Itoa(s.Attempt)); err != nil {
			s.Status = undoPausing
			t.stuck(fmt.Sprintf("step %q: the command of its compensation can't be made: %v", key, err))
			return
		}
		s.Status = undone
		if len(n.compensated) > 0 {
			s.Status, s.Due = undoWaiting, t.in(n.undoTimeout)
		}
	case n.compensate.kind == invoke:
		s.Status = undoCalling
		t.calls = append(t.calls, call{key: undoPrefix + key, action: n.compensate, timeout: n.undoTimeout})
	default:
		s.Status = undone
	}
}

func (p *stepProgram) undoAgain(t *transit, n *node, key string, s *stepState, why string) {
	s.Status, s.Error = undoPausing, why
	if s.Attempt < n.undoRetry.attempts(true) {
		s.Due = t.in(n.undoRetry.pause(s.Attempt))
		return
	}
	s.Due = time.Time{}
	t.stuck(fmt.Sprintf("step %q could not be compensated in %d attempts: %s", key, s.Attempt, why))
}

// control takes an operator's act.
func (p *stepProgram) control(t *transit, c control) error {
	switch c.Kind {
	case controlCancel:
		return p.cancel(t, "cancelled: "+c.Name)
	case controlCompensate:
		return p.force(t, "compensated by an operator: "+c.Name)
	case controlRetry:
		return p.retry(t)
	case controlSkip:
		return p.skip(t, c.Name)
	}
	return eventbus.Permanent(fmt.Errorf("unknown act %q", c.Kind))
}

func (p *stepProgram) cancel(t *transit, why string) error {
	switch {
	case t.progress.PastPivot:
		return eventbus.Permanent(fmt.Errorf("%w: it is past its pivot", ErrNotPossible))
	case t.instance.Status != Running && (t.instance.Status != Stuck || t.progress.Resume != Running):
		return eventbus.Permanent(fmt.Errorf("%w: it is %s", ErrNotPossible, t.instance.Status))
	}
	p.turnBack(t, why)
	p.advance(t)
	return nil
}

// force compensates whatever can be, also after a pivot or the end.
func (p *stepProgram) force(t *transit, why string) error {
	if t.instance.Status == Compensating || t.instance.Status == Compensated {
		return eventbus.Permanent(fmt.Errorf("%w: it is %s", ErrNotPossible, t.instance.Status))
	}
	p.turnBack(t, why)
	p.advance(t)
	return nil
}

// retry goes on with a stuck instance, with all attempts again.
func (p *stepProgram) retry(t *transit) error {
	if t.instance.Status != Stuck {
		return eventbus.Permanent(fmt.Errorf("%w: it is %s, not stuck", ErrNotPossible, t.instance.Status))
	}
	t.instance.Status, t.instance.Error, t.progress.Resume = t.progress.Resume, "", ""
	if len(t.progress.Order) == 0 { // it got stuck before it began
		if err := t.takeEarly(); err != nil {
			return err
		}
	}
	unanswered := p.pending(t.progress)
	for _, key := range slices.Clone(t.progress.Order) {
		s, n := t.progress.Steps[key], p.find(key)
		switch {
		case n == nil:
		case s.Status == pausing && s.Due.IsZero():
			s.Attempt = 0
			p.attempt(t, n, key, s)
		case s.Status == undoPausing && s.Due.IsZero():
			s.Attempt = 0
			p.undoAttempt(t, n, key, s)
		}
	}
	p.advance(t)
	for _, c := range unanswered {
		if s := t.progress.Steps[stepOf(c.key)]; s.Status == calling || s.Status == undoCalling {
			t.calls = append(t.calls, c)
		}
	}
	return nil
}

// skip takes a step, forward or backward, for done.
func (p *stepProgram) skip(t *transit, key string) error {
	s := t.progress.Steps[key]
	switch {
	case s == nil:
		return eventbus.Permanent(fmt.Errorf("%w: it has not begun a step %q", ErrNotPossible, key))
	case s.Status.inFlight():
		s.Status = done
	case s.Status.undoing():
		s.Status = undone
	default:
		return eventbus.Permanent(fmt.Errorf("%w: step %q is %s", ErrNotPossible, key, s.Status))
	}
	s.Due, s.Error = time.Time{}, "skipped by an operator"
	if t.instance.Status == Stuck {
		t.instance.Status, t.instance.Error, t.progress.Resume = t.progress.Resume, "", ""
	}
	p.advance(t)
	return nil
}
