package saga

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// stepProgram is the notation of steps. Where an instance is follows from the
// states of its steps: each transition walks through the definition, passes what
// is done, and begins what comes next.
type stepProgram struct {
	root    []*node
	inOrder bool
	steps   map[string]*node // by name
	looped  map[*node]bool   // within a loop
}

func newStepProgram(root []*node, inOrder bool) *stepProgram {
	p := &stepProgram{root: root, inOrder: inOrder, steps: map[string]*node{}, looped: map[*node]bool{}}
	visit(root, func(n *node) {
		switch n.kind {
		case stepNode:
			p.steps[n.name] = n
		case loopNode:
			visit(n.children, func(c *node) { p.looped[c] = true })
		}
	})
	return p
}

// stepState is what is known about a step. Its key in progress is the step's
// name, followed by "#" and the round for each loop around it.
type stepState struct {
	Status  stepStatus `json:"status"`
	Attempt int        `json:"attempt,omitempty"` // forward or backward, whichever it is doing
	Due     time.Time  `json:"due,omitzero"`
	Error   string     `json:"error,omitempty"`
	Refused int        `json:"refused,omitempty"` // how often, after the pivot
	Done    bool       `json:"done,omitempty"`    // what is undone was done for certain
}

// asked returns the key under which the step is asked for. It is another after
// each refusal: who has refused a step does not do it any more.
func (s *stepState) asked(key string) string {
	if s.Refused == 0 {
		return key
	}
	return key + ":" + strconv.Itoa(s.Refused+1)
}

type stepStatus string

const (
	waiting stepStatus = "waiting" // for an answer
	calling stepStatus = "calling"
	pausing stepStatus = "pausing" // before the next attempt
	done    stepStatus = "done"
	failed  stepStatus = "failed"  // and nothing was done
	unknown stepStatus = "unknown" // it may have been done
	skipped stepStatus = "skipped"

	undoWaiting stepStatus = "compensating"
	undoCalling stepStatus = "calling to compensate"
	undoPausing stepStatus = "pausing to compensate"
	undone      stepStatus = "compensated"
)

func (s stepStatus) inFlight() bool { return s == waiting || s == calling || s == pausing }

func (s stepStatus) undoing() bool {
	return s == undoWaiting || s == undoCalling || s == undoPausing
}

func (p *stepProgram) begin(t *transit) {
	if t.src != nil {
		t.apply(t.src, t.value)
	}
	p.advance(t)
}

// attempt does what a step does.
func (p *stepProgram) attempt(t *transit, n *node, key string, s *stepState) {
	s.Attempt++
	s.Due = t.in(n.timeout)
	s.Status = waiting
	switch n.do.kind {
	case send:
		if err := t.emit(n.do, s.asked(key), strconv.Itoa(s.Attempt)); err != nil {
			t.stuck(fmt.Sprintf("step %q: its command can't be made: %v", key, err))
		}
	case startChild:
		t.startChild(n.do, s.asked(key))
	case invoke:
		s.Status, s.Due = calling, time.Time{}
		t.calls = append(t.calls, call{key: key, action: n.do, timeout: n.timeout})
	}
}

// in returns the time after d, or the zero time for none.
func (t *transit) in(d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return t.now.Add(d).UTC().Truncate(time.Millisecond)
}

// again follows an attempt of which nobody knows whether it did something.
func (p *stepProgram) again(t *transit, n *node, key string, s *stepState, why string) {
	s.Error = why
	switch {
	case s.Attempt < n.retry.attempts(t.progress.PastPivot):
		s.Status, s.Due = pausing, t.in(n.retry.pause(s.Attempt))
	case t.progress.PastPivot:
		s.Status, s.Due = pausing, time.Time{}
		t.stuck(fmt.Sprintf("step %q failed %d times after the pivot: %s", key, s.Attempt, why))
	default:
		s.Status, s.Due = unknown, time.Time{}
	}
}

// refused follows an answer that says that nothing was done.
func (p *stepProgram) refused(t *transit, n *node, key string, s *stepState, why string) {
	if t.progress.PastPivot {
		if t.step != "" {
			s.Refused++
		}
		p.again(t, n, key, s, why)
		return
	}
	s.Status, s.Due, s.Error = failed, time.Time{}, why
}

func (p *stepProgram) nextDue(pr *progress) time.Time {
	var next time.Time
	for _, s := range pr.Steps {
		if !s.Due.IsZero() && (next.IsZero() || s.Due.Before(next)) {
			next = s.Due
		}
	}
	return next
}

func (p *stepProgram) position(pr *progress) string {
	var parts []string
	for _, key := range pr.Order {
		if s := pr.Steps[key]; s.Status.inFlight() || s.Status.undoing() {
			parts = append(parts, key+": "+string(s.Status))
		}
	}
	return strings.Join(parts, ", ")
}

func (p *stepProgram) sources() []source {
	var all []source
	visit(p.root, func(n *node) {
		all = append(append(append(all, n.success...), n.failure...), n.compensated...)
	})
	return all
}

// pending returns the calls that have to be made, which is known of an instance
// whose process has died.
func (p *stepProgram) pending(pr *progress) []call {
	var all []call
	for _, key := range pr.Order {
		n := p.find(key)
		if n == nil {
			continue
		}
		switch pr.Steps[key].Status {
		case calling:
			all = append(all, call{key: key, action: n.do, timeout: n.timeout})
		case undoCalling:
			all = append(all, call{key: undoPrefix + key, action: n.compensate, timeout: n.undoTimeout})
		}
	}
	return all
}

// find returns the step of a key.
func (p *stepProgram) find(key string) *node { return p.steps[nameOf(key)] }

// nameOf returns the name of a step without the rounds of loops.
func nameOf(key string) string {
	name, _, _ := strings.Cut(key, "#")
	return name
}

// visit calls f for every node, outer ones first.
func visit(nodes []*node, f func(*node)) {
	for _, n := range nodes {
		if n == nil {
			continue
		}
		f(n)
		visit(n.children, f)
		visit(n.otherwise, f)
	}
}
