package saga

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-go/millrace/internal/failure"
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
}

// asked returns the key under which the step is asked for. It is another after
// each refusal: who has refused a step does not do it any more.
func (s *stepState) asked(key string) string {
	if s.Refused == 0 {
		return key
	}
	return key + ":" + strconv.Itoa(s.Refused+1)
}

// answers reports whether the event answers what the step asks for, if it says so.
func (t *transit) answers(s *stepState, key string) bool {
	return t.step == "" || t.step == s.asked(key)
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

// outcome of a walk through a part of the definition.
type outcome int

const (
	goesOn outcome = iota
	succeeds
	fails
)

func (p *stepProgram) begin(t *transit) {
	if t.src != nil {
		t.apply(t.src, t.value)
	}
	p.advance(t)
}

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
