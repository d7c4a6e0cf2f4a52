package saga

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Validate returns all that is wrong with a definition, in one error. It finds,
// beside what is missing or contradictory: steps without a compensation before
// a pivot, steps and states that wait without a timeout and don't say so, states
// that can't be reached or not be left, transitions that are never taken, events
// that can arrive where nothing takes them, timers and calls that nobody handles.
func Validate(d Untyped) error {
	_, err := checked(d)
	return err
}

func checked(d Untyped) (*blueprint, error) {
	if d == nil {
		return nil, errors.New("saga: the definition is nil")
	}
	b := d.blueprint()
	p := &problems{}
	p.errs = append(p.errs, b.problems...)
	b.validate(p)
	if err := errors.Join(p.errs...); err != nil {
		return nil, fmt.Errorf("saga %q version %d: %w", b.name, b.version, err)
	}
	return b, nil
}

// problems collects what is wrong.
type problems struct{ errs []error }

func (p *problems) add(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

func (b *blueprint) validate(p *problems) {
	if b.name == "" {
		p.add("it has no Name")
	} else if err := driver.CheckTopic(controlName(b.name)); err != nil {
		p.add("its Name is part of topics' names: %w", err)
	}
	if b.version < 1 {
		p.add("its Version must be at least 1, got %d", b.version)
	}
	if _, err := json.Marshal(b.fresh()); err != nil {
		p.add("its state can't be stored: %w", err)
	}
	for v := 1; v < b.stateVersion; v++ {
		if _, ok := b.migrations[v]; !ok {
			p.add("StateVersion is %d and there is no Migration from %d", b.stateVersion, v)
		}
	}
	for _, src := range b.startedBy {
		if src.topic == "" {
			p.add("StartedBy: %q can't start an instance; only events of topics can", src.key)
		}
	}
	for _, src := range b.all {
		if src.problem != nil {
			p.errs = append(p.errs, src.problem)
		}
	}
	switch program := b.program.(type) {
	case *stepProgram:
		program.validate(p)
	case *stateProgram:
		program.validate(p, b.startedBy)
	}
}

func (p *stepProgram) validate(ps *problems) {
	if len(p.root) == 0 {
		ps.add("it has neither Steps nor States")
	}
	names := map[string]bool{}
	pivots := 0
	for _, n := range p.root {
		if n != nil && n.kind == pivotNode {
			pivots++
			continue
		}
		n.validate(ps, names, pivots > 0)
	}
	if pivots > 1 {
		ps.add("it has %d pivots; there is one point of no return at most", pivots)
	}
}

func (n *node) validate(ps *problems, names map[string]bool, pastPivot bool) {
	if n == nil {
		ps.add("a node is nil")
		return
	}
	n.validateName(ps, names)
	switch n.kind {
	case pivotNode:
		ps.add("a Pivot stands within another node; it belongs between the steps of the definition itself")
	case stepNode:
		n.validateStep(ps, pastPivot)
	case parallelNode:
		if len(n.children) < 2 {
			ps.add("parallel %q has %d branches; it needs two at least", n.name, len(n.children))
		}
		if n.need < 0 || n.need > len(n.children) {
			ps.add("parallel %q: Need is %d of %d branches", n.name, n.need, len(n.children))
		}
	case ifNode:
		if n.when == nil && n.name != "" {
			ps.add("if %q: Cond is nil", n.name)
		}
	case loopNode:
		if n.when == nil {
			ps.add("loop %q: While is nil", n.name)
		}
		if n.need < 1 {
			ps.add("loop %q: Max must be at least 1, got %d", n.name, n.need)
		}
	}
	for _, c := range append(slices.Clone(n.children), n.otherwise...) {
		c.validate(ps, names, pastPivot)
	}
}

func (n *node) validateName(ps *problems, names map[string]bool) {
	sequence := n.kind == ifNode && n.when == nil
	switch {
	case n.kind == pivotNode || sequence && n.name == "":
		return
	case n.name == "":
		ps.add("a node has no Name")
	case strings.ContainsAny(n.name, "#:"):
		ps.add("name %q: '#' and ':' are not allowed", n.name)
	case names[n.name]:
		ps.add("two nodes have the name %q", n.name)
	}
	names[n.name] = true
}

func (n *node) validateStep(ps *problems, pastPivot bool) {
	fault := func(format string, args ...any) { ps.add("step %q: "+format, append([]any{n.name}, args...)...) }
	waits := n.do.kind == send || n.do.kind == nothing || n.do.kind == startChild
	switch {
	case n.do.kind == notNeeded:
		fault("Do is NotNeeded")
	case waits && len(n.success) == 0:
		fault("it has no Success to wait for")
	case !waits && len(n.success)+len(n.failure) > 0:
		fault("it calls a function, whose return is its answer; Success and Failure must be empty")
	}
	switch {
	case n.timeout == 0:
		fault("it has no Timeout; NoTimeout says that it may wait for ever")
	case n.timeout < 0 && n.timeout != NoTimeout:
		fault("Timeout is negative")
	}
	for _, r := range []Retry{n.retry, n.undoRetry} {
		if r.Attempts < 0 || r.Pause < 0 || r.MaxPause < 0 {
			fault("Retry and CompensateRetry must not have negative values")
		}
	}
	if n.undoTimeout < 0 {
		fault("CompensateTimeout is negative")
	}
	n.validateCompensation(fault, pastPivot)
	keys := map[string]bool{}
	for _, src := range append(slices.Clone(n.success), n.failure...) {
		if keys[src.key] {
			fault("%q is an answer twice", src.key)
		}
		keys[src.key] = true
		if src.decode == nil {
			fault("%q belongs to the notation of states", src.key)
		}
	}
}

func (n *node) validateCompensation(fault func(string, ...any), pastPivot bool) {
	waitsOnly := n.do.kind == nothing
	child := n.do.undoesItself
	switch {
	case child && n.compensate.kind != nothing:
		fault("its Child is compensated by its own steps; Compensate must be empty")
	case n.compensate.kind == nothing && !pastPivot && n.do.kind == startChild && !child:
		fault("it has no Compensate, and its Child is in the notation of states: Compensate must tell it, by a signal for instance; NotNeeded says that there is nothing to undo")
	case n.compensate.kind == nothing && !pastPivot && !waitsOnly && !child:
		fault("it has no Compensate; NotNeeded says that there is nothing to undo")
	case n.compensate.kind == startChild:
		fault("Compensate can't be a Child")
	case n.compensate.kind == notNeeded && n.compensate.reason == "":
		fault("NotNeeded must say why")
	case !child && len(n.compensated) > 0 && n.compensate.kind != send:
		fault("Compensated answers a command, but Compensate sends none")
	}
}
