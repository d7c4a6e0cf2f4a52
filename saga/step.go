package saga

import "time"

// Node is a part of a sequence: Step, Parallel, If, Loop, Sub or Pivot.
type Node[S any] interface{ node() *node }

// node is a Node without its types.
type node struct {
	kind     nodeKind
	name     string
	children []*node

	do, compensate                action
	success, failure, compensated []source
	timeout, undoTimeout          time.Duration
	retry, undoRetry              Retry
	when                          func(state any) bool // Step, If, Loop
	otherwise                     []*node
	need                          int // Parallel, Loop
}

type nodeKind int

const (
	stepNode nodeKind = iota
	parallelNode
	ifNode
	loopNode
	pivotNode
)

// Step is one action and what answers it.
//
// A step that sends a command waits for Success or Failure. A step that calls a
// function has its answer by the function's return. A step without an action just
// waits. Failure says that nothing was done, so there is nothing to compensate; a
// step whose time is up may have been done and is compensated like one that
// succeeded.
type Step[S any] struct {
	// Name is unique in the definition and part of what is stored.
	Name string
	// Do is what the step does.
	Do Action[S]
	// When, if set, is asked once; a step for which it returns false is left out.
	When func(s S) bool
	// Success and Failure answer a command.
	Success, Failure Event[S]
	// Timeout bounds each attempt. It is required, but for a Call that goes through
	// a policy, where it defaults to a minute; NoTimeout waits for ever.
	Timeout time.Duration
	// Retry says what to do when an attempt's time is up or its call fails with an
	// error that is not permanent.
	Retry Retry
	// Compensate undoes the step. It is required before a Pivot; NotNeeded says
	// that there is nothing to undo. It is tried again as CompensateRetry says, and
	// then the instance is stuck.
	Compensate Action[S]
	// CompensateTimeout bounds each attempt at compensating. Defaults to Timeout, but
	// a minute at most.
	CompensateTimeout time.Duration
	// CompensateRetry defaults to ten attempts.
	CompensateRetry Retry
	// Compensated answers the command of Compensate. Without it the command has
	// done its work when it is sent, which the outbox guarantees.
	Compensated Event[S]
}

// NoTimeout is the Timeout of a step that may wait for ever.
const NoTimeout = -1

// Retry is how often and with which pauses a step, or its compensation, is tried.
// The zero value is one attempt before a pivot, and ten for a compensation and
// after a pivot, when there is no way back.
type Retry struct {
	// Attempts at most, the first included.
	Attempts int
	// Pause before the second attempt; it doubles from attempt to attempt up to
	// MaxPause. Defaults to a second.
	Pause time.Duration
	// MaxPause defaults to a minute.
	MaxPause time.Duration
}

func (r Retry) attempts(noWayBack bool) int {
	switch {
	case r.Attempts > 0:
		return r.Attempts
	case noWayBack:
		return 10
	}
	return 1
}

// pause returns the pause after the given attempt, the first being 1.
func (r Retry) pause(attempt int) time.Duration {
	d, most := r.Pause, r.MaxPause
	if d == 0 {
		d = time.Second
	}
	if most == 0 {
		most = time.Minute
	}
	for range attempt - 1 {
		if d *= 2; d >= most {
			return most
		}
	}
	return min(d, most)
}

func (s Step[S]) node() *node {
	n := &node{
		kind: stepNode, name: s.Name, do: s.Do.action, compensate: s.Compensate.action,
		success: s.Success.sources, failure: s.Failure.sources, compensated: s.Compensated.sources,
		timeout: s.Timeout, retry: s.Retry, undoTimeout: s.CompensateTimeout, undoRetry: s.CompensateRetry, when: condition(s.When),
	}
	if n.timeout == 0 && n.do.kind == invoke && n.do.policy != nil {
		n.timeout = time.Minute
	}
	if n.undoTimeout == 0 {
		n.undoTimeout = time.Minute
		if n.timeout > 0 {
			n.undoTimeout = min(n.undoTimeout, n.timeout)
		}
	}
	if n.do.kind == startChild {
		n.failure = append(n.failure, endedSource(n.do.child, Compensated))
	}
	if n.do.undoesItself {
		n.compensated = append(n.compensated, endedSource(n.do.child, Compensated))
	}
	return n
}

// Parallel runs branches side by side. It is done when Need of them are done, and
// fails when that can't be reached any more. Branches that are not needed any
// more are left alone: their answers are ignored, and if the saga is compensated,
// so are they.
type Parallel[S any] struct {
	Name     string
	Branches []Node[S] // a branch of several nodes is a Sequence
	// Need is how many branches must succeed: All (the default), Any, or a number.
	Need int
}

const (
	// All branches of a Parallel must succeed.
	All = 0
	// Any branch of a Parallel is enough.
	Any = 1
)

func (p Parallel[S]) node() *node {
	return &node{kind: parallelNode, name: p.Name, children: nodesOf(p.Branches), need: p.Need}
}

// Sequence is nodes one after the other, as a branch.
type Sequence[S any] []Node[S]

func (s Sequence[S]) node() *node {
	return &node{kind: ifNode, children: nodesOf(s)}
}

// If runs Then or Else. The condition is asked once.
type If[S any] struct {
	Name       string
	Cond       func(s S) bool
	Then, Else []Node[S]
}

func (i If[S]) node() *node {
	return &node{kind: ifNode, name: i.Name, when: condition(i.Cond), children: nodesOf(i.Then), otherwise: nodesOf(i.Else)}
}

// Loop runs Body as long as While returns true, at most Max times; beyond that
// the saga fails. Each round is compensated by itself.
type Loop[S any] struct {
	Name  string
	While func(s S) bool
	Max   int
	Body  []Node[S]
}

func (l Loop[S]) node() *node {
	return &node{kind: loopNode, name: l.Name, when: condition(l.While), children: nodesOf(l.Body), need: l.Max}
}

// Pivot is the point of no return: what follows is tried until it succeeds, and
// nothing is compensated any more.
type Pivot[S any] struct{}

func (Pivot[S]) node() *node { return &node{kind: pivotNode} }

func nodesOf[S any](nodes []Node[S]) []*node {
	all := make([]*node, 0, len(nodes))
	for _, n := range nodes {
		if n == nil {
			all = append(all, nil)
			continue
		}
		all = append(all, n.node())
	}
	return all
}

func condition[S any](f func(S) bool) func(any) bool {
	if f == nil {
		return nil
	}
	return func(state any) bool { return f(*state.(*S)) }
}
