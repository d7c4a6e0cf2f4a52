package saga

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-go/millrace/internal/failure"
)

// answers reports whether the event answers what the step asks for, if it says so.
func (t *transit) answers(s *stepState, key string) bool {
	return t.step == "" || t.step == s.asked(key)
}

func (p *stepProgram) happen(t *transit) (taken, keep bool) {
	switch t.instance.Status {
	case Running:
		taken, keep = p.answer(t)
	case Compensating:
		taken = p.answerBack(t)
	default:
		t.note = "late: the instance is " + string(t.instance.Status)
		return false, t.instance.Status == Stuck
	}
	if taken {
		p.advance(t)
	}
	return taken, keep
}

// answer gives an event to the step that waits for it.
func (p *stepProgram) answer(t *transit) (taken, keep bool) {
	for _, key := range t.progress.Order {
		s, n := t.progress.Steps[key], p.find(key)
		if n == nil || s.Status != waiting && s.Status != pausing || !t.answers(s, key) {
			continue
		}
		if src := match(n.success, t.key); src != nil {
			t.apply(src, t.value)
			s.Status, s.Due, s.Error = done, time.Time{}, ""
			return true, false
		}
		if src := match(n.failure, t.key); src != nil {
			t.apply(src, t.value)
			p.refused(t, n, key, s, "answered by "+t.key)
			return true, false
		}
	}
	if p.answerLate(t) {
		return true, false
	}
	if p.awaits(t) {
		return false, true
	}
	if src := match(t.plan.startedBy, t.key); src != nil {
		t.apply(src, t.value)
		return true, false
	}
	t.note = "late or repeated: no step waits for it"
	return false, false
}

// awaits reports whether a step that has not begun will wait for the event.
func (p *stepProgram) awaits(t *transit) bool {
	found := false
	visit(p.root, func(n *node) {
		if n.kind != stepNode || match(n.success, t.key) == nil && match(n.failure, t.key) == nil {
			return
		}
		begun := slices.ContainsFunc(t.progress.Order, func(key string) bool { return nameOf(key) == n.name })
		found = found || !begun || p.looped[n]
	})
	return found
}

// answerBack gives an event to the step whose compensation waits for it.
func (p *stepProgram) answerBack(t *transit) bool {
	for _, key := range t.progress.Order {
		s, n := t.progress.Steps[key], p.find(key)
		if n == nil || !t.answers(s, key) {
			continue
		}
		if src := match(n.compensated, t.key); src != nil && s.Status.undoing() {
			t.apply(src, t.value)
			s.Status, s.Due, s.Error = undone, time.Time{}, ""
			return true
		}
	}
	if p.answerLate(t) {
		return true
	}
	t.note = "late or repeated: no compensation waits for it"
	return false
}

// answerLate gives an event to a step that nobody waits for any more, which may
// have to be undone.
func (p *stepProgram) answerLate(t *transit) bool {
	for _, key := range t.progress.Order {
		s, n := t.progress.Steps[key], p.find(key)
		if n == nil || s.Status != unknown || !t.answers(s, key) {
			continue
		}
		if src := match(n.success, t.key); src != nil {
			t.apply(src, t.value)
			s.Status = done
			return true
		}
		if src := match(n.failure, t.key); src != nil {
			t.apply(src, t.value)
			s.Status, s.Error = failed, "answered by "+t.key
			return true
		}
	}
	return false
}

func (p *stepProgram) returned(t *transit, calls []call) {
	for _, c := range calls {
		key, back := strings.CutPrefix(c.key, undoPrefix)
		s, n := t.progress.Steps[key], p.find(key)
		switch {
		case s == nil || n == nil:
		case back:
			p.undoReturned(t, n, key, s, c)
		default:
			p.forwardReturned(t, n, key, s, c)
		}
	}
	p.advance(t)
}

func (p *stepProgram) forwardReturned(t *transit, n *node, key string, s *stepState, c call) {
	late := s.Status == unknown
	if s.Status != calling && !late {
		return
	}
	switch {
	case c.err == nil:
		if c.action.apply != nil {
			c.action.apply(t.state, c.result)
		}
		s.Status, s.Error = done, ""
	case late:
	case t.instance.Status == Compensating && failure.Of(c.err) == failure.Permanent:
		s.Status, s.Error = failed, c.err.Error()
	case t.instance.Status == Compensating:
		s.Status, s.Error = unknown, c.err.Error()
	case failure.Of(c.err) == failure.Permanent:
		p.refused(t, n, key, s, c.err.Error())
	default:
		p.again(t, n, key, s, c.err.Error())
	}
}

func (p *stepProgram) undoReturned(t *transit, n *node, key string, s *stepState, c call) {
	if s.Status != undoCalling {
		return
	}
	switch {
	case c.err == nil:
		if c.action.apply != nil {
			c.action.apply(t.state, c.result)
		}
		s.Status, s.Error = undone, ""
	case failure.Of(c.err) == failure.Permanent:
		s.Attempt = n.undoRetry.attempts(true)
		fallthrough
	default:
		p.undoAgain(t, n, key, s, c.err.Error())
	}
}

func (p *stepProgram) wake(t *transit) {
	for _, key := range t.progress.Order {
		s, n := t.progress.Steps[key], p.find(key)
		if n == nil || s.Due.IsZero() || s.Due.After(t.now) {
			continue
		}
		switch s.Status {
		case waiting:
			p.again(t, n, key, s, fmt.Sprintf("no answer within %v", n.timeout))
		case pausing:
			p.attempt(t, n, key, s)
		case undoWaiting:
			p.undoAgain(t, n, key, s, fmt.Sprintf("no answer to the compensation within %v", n.undoTimeout))
		case undoPausing:
			p.undoAttempt(t, n, key, s)
		}
		if t.instance.Status == Stuck {
			return
		}
	}
	p.advance(t)
}
