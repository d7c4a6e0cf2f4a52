package saga

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// outcome of a walk through a part of the definition.
type outcome int

const (
	goesOn outcome = iota
	succeeds
	fails
)

// advance does what can be done now.
func (p *stepProgram) advance(t *transit) {
	if t.instance.Status == Running {
		switch p.sequence(t, p.root, "") {
		case succeeds:
			t.end(Completed)
		case fails:
			p.turnBack(t, p.reason(t))
		case goesOn:
		}
	}
	if t.instance.Status == Compensating {
		p.undo(t)
	}
}

// reason names the step that failed first.
func (p *stepProgram) reason(t *transit) string {
	for _, key := range t.progress.Order {
		if s := t.progress.Steps[key]; s.Status == failed || s.Status == unknown {
			return fmt.Sprintf("step %q: %s", key, s.Error)
		}
	}
	return t.instance.Error
}

func (p *stepProgram) sequence(t *transit, nodes []*node, suffix string) outcome {
	for _, n := range nodes {
		if o := p.walk(t, n, suffix); o != succeeds || t.instance.Status != Running {
			return o
		}
	}
	return succeeds
}

func (p *stepProgram) walk(t *transit, n *node, suffix string) outcome {
	switch n.kind {
	case pivotNode:
		t.progress.PastPivot = true
		return succeeds
	case parallelNode:
		return p.parallel(t, n, suffix)
	case ifNode:
		return p.branch(t, n, suffix)
	case loopNode:
		return p.loop(t, n, suffix)
	}
	return p.step(t, n, suffix)
}

func (p *stepProgram) step(t *transit, n *node, suffix string) outcome {
	key := n.name + suffix
	s := t.progress.Steps[key]
	if s == nil {
		s = &stepState{}
		t.progress.step(key, s)
		if n.when != nil && !n.when(t.state) {
			s.Status = skipped
			return succeeds
		}
		p.attempt(t, n, key, s)
	}
	switch s.Status {
	case done, skipped:
		return succeeds
	case failed, unknown:
		return fails
	}
	return goesOn
}

func (p *progress) step(key string, s *stepState) {
	if p.Steps == nil {
		p.Steps = map[string]*stepState{}
	}
	p.Steps[key] = s
	p.Order = append(p.Order, key)
}

func (p *stepProgram) parallel(t *transit, n *node, suffix string) outcome {
	key := n.name + suffix
	if t.progress.Choices[key] {
		return succeeds
	}
	need := n.need
	if need == All {
		need = len(n.children)
	}
	succeeded, failures := 0, 0
	for _, child := range n.children {
		switch p.walk(t, child, suffix) {
		case succeeds:
			succeeded++
		case fails:
			failures++
		case goesOn:
		}
		if t.instance.Status != Running {
			return goesOn
		}
	}
	switch {
	case succeeded >= need:
		t.progress.choose(key, true)
		p.abandon(t, n.children, suffix)
		return succeeds
	case len(n.children)-failures < need:
		return fails
	}
	return goesOn
}

// abandon leaves alone what is still under way in branches that are not needed.
// What calls have done is known when they return.
func (p *stepProgram) abandon(t *transit, nodes []*node, suffix string) {
	names := map[string]bool{}
	visit(nodes, func(n *node) { names[n.name] = true })
	for key, s := range t.progress.Steps {
		if s.Status.inFlight() && s.Status != calling && names[nameOf(key)] && strings.HasPrefix(strings.TrimPrefix(key, nameOf(key)), suffix) {
			s.Status, s.Due, s.Error = unknown, time.Time{}, "not needed any more"
		}
	}
}

func (p *stepProgram) branch(t *transit, n *node, suffix string) outcome {
	if n.when == nil {
		return p.sequence(t, n.children, suffix)
	}
	key := n.name + suffix
	yes, chosen := t.progress.Choices[key]
	if !chosen {
		yes = n.when(t.state)
		t.progress.choose(key, yes)
	}
	if yes {
		return p.sequence(t, n.children, suffix)
	}
	return p.sequence(t, n.otherwise, suffix)
}

func (p *stepProgram) loop(t *transit, n *node, suffix string) outcome {
	key := n.name + suffix
	for {
		round := t.progress.Rounds[key]
		if round > 0 {
			if o := p.sequence(t, n.children, suffix+"#"+strconv.Itoa(round)); o != succeeds || t.instance.Status != Running {
				return o
			}
		}
		switch {
		case t.progress.Choices[key]:
			return succeeds
		case !n.when(t.state):
			t.progress.choose(key, true)
			return succeeds
		case round == n.need:
			t.instance.Error = fmt.Sprintf("loop %q is not done after %d rounds", key, round)
			if t.progress.PastPivot {
				t.stuck(t.instance.Error)
				return goesOn
			}
			return fails
		}
		if t.progress.Rounds == nil {
			t.progress.Rounds = map[string]int{}
		}
		t.progress.Rounds[key] = round + 1
	}
}

func (p *progress) choose(key string, yes bool) {
	if p.Choices == nil {
		p.Choices = map[string]bool{}
	}
	p.Choices[key] = yes
}
