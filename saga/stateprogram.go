package saga

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-go/millrace/eventbus"
)

// stateProgram is the notation of states.
type stateProgram struct {
	states     []*state
	composites []source // each once
}

func newStateProgram(states []*state) *stateProgram {
	return &stateProgram{states, compositesOf(states)}
}

func (p *stateProgram) begin(t *transit) {
	t.progress.State = p.states[0].name
	if t.src == nil {
		return
	}
	if taken, _ := p.happen(t); !taken && t.note == "" {
		t.apply(t.src, t.value)
	}
}

// current is the state of an instance, the first for one that has not begun.
func (p *stateProgram) current(pr *progress) *state {
	if pr.State == "" {
		return p.states[0]
	}
	return p.find(pr.State)
}

func (p *stateProgram) find(name string) *state {
	for _, s := range p.states {
		if s.name == name {
			return s
		}
	}
	return nil
}

func (p *stateProgram) happen(t *transit) (taken, keep bool) {
	if t.instance.Status != Running {
		t.note = "late: the instance is " + string(t.instance.Status)
		return false, t.instance.Status == Stuck
	}
	if t.progress.superseded(t.step) {
		t.note = fmt.Sprintf("late: %q has been begun anew", t.step)
		return false, false
	}
	completed, recorded := p.complete(t)
	taken, err := p.take(t)
	if err != nil {
		t.stuck(err.Error())
		return true, false
	}
	for _, name := range completed {
		t.key, t.value, t.src = compositePrefix+name, nil, nil
		if _, err := p.take(t); err != nil {
			t.stuck(err.Error())
		}
		taken = true
	}
	if taken || recorded && !p.handled(t.key) {
		return true, false
	}
	s := p.current(t.progress)
	if match(s.ignores, t.key) != nil {
		t.note = fmt.Sprintf("ignored in state %q", s.name)
		return false, false
	}
	if !p.handled(t.key) {
		t.note = "late or repeated: no state handles it"
		return false, false
	}
	return false, true
}

// handled reports whether any state handles events of the given key.
func (p *stateProgram) handled(key string) bool {
	return slices.ContainsFunc(p.states, func(s *state) bool {
		return slices.ContainsFunc(s.on, func(tr transition) bool { return match(tr.sources, key) != nil })
	})
}

// take makes the transition for t.key, if there is one whose condition holds.
func (p *stateProgram) take(t *transit) (bool, error) {
	s := p.current(t.progress)
	if s == nil {
		return false, fmt.Errorf("the definition has no state %q", t.progress.State)
	}
	for _, tr := range s.on {
		src := match(tr.sources, t.key)
		if src == nil {
			continue
		}
		if yes, err := t.try(src, tr.cond); err != nil {
			return false, err
		} else if yes {
			return true, p.follow(t, tr)
		}
	}
	return false, nil
}

// try applies the event, and takes it back if cond is false for what it leaves.
func (t *transit) try(src *source, cond func(state any) bool) (bool, error) {
	var before []byte
	if cond != nil {
		var err error
		if before, err = json.Marshal(t.state); err != nil {
			return false, fmt.Errorf("the state can't be encoded: %w", err)
		}
	}
	if t.value != nil {
		t.apply(src, t.value)
	}
	if cond == nil || cond(t.state) {
		return true, nil
	}
	return false, restore(t.state, before)
}

// restore sets a state back.
func restore(state any, raw []byte) error {
	reflect.ValueOf(state).Elem().SetZero()
	return json.Unmarshal(raw, state)
}

func (p *stateProgram) follow(t *transit, tr transition) error {
	for i, e := range tr.do {
		if err := p.effect(t, e, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	if tr.goTo == "" {
		return nil
	}
	t.progress.State = tr.goTo
	next := p.find(tr.goTo)
	if next == nil {
		return fmt.Errorf("the definition has no state %q", tr.goTo)
	}
	if next.final != "" {
		t.progress.Timers, t.calls = nil, nil
		t.end(next.final)
	}
	return nil
}

func (p *stateProgram) effect(t *transit, e effect, n string) error {
	switch e.kind {
	case update:
		e.update(t.state)
	case schedule:
		if t.progress.Timers == nil {
			t.progress.Timers = map[string]time.Time{}
		}
		t.progress.Timers[e.name] = t.in(e.after)
	case unschedule:
		delete(t.progress.Timers, e.name)
	case anew:
		t.progress.anew(e.name)
	case doAction:
		return p.act(t, e, n)
	}
	return nil
}

func (p *stateProgram) act(t *transit, e effect, n string) error {
	key := t.progress.current(e.name)
	switch e.action.kind {
	case send:
		if err := t.emit(e.action, key, n); err != nil {
			return fmt.Errorf("the command %q can't be made: %w", e.name, err)
		}
	case startChild:
		t.startChild(e.action, key)
	case invoke:
		if t.progress.Steps == nil {
			t.progress.Steps = map[string]*stepState{}
		}
		t.progress.Steps[key] = &stepState{Status: calling, Attempt: 1}
		t.calls = append(t.calls, e.call(key))
	}
	return nil
}

func (e effect) call(key string) call {
	return call{key: key, name: e.name, action: e.action, timeout: time.Minute}
}

// anew begins another round of what is done under a name.
func (p *progress) anew(name string) {
	delete(p.Steps, p.current(name))
	if p.Rounds == nil {
		p.Rounds = map[string]int{}
	}
	p.Rounds[name]++
}

// current returns the key of what is done under a name.
func (p *progress) current(name string) string {
	if n := p.Rounds[name]; n > 0 {
		return name + "#" + strconv.Itoa(n+1)
	}
	return name
}

// superseded reports whether a key is that of an earlier round.
func (p *progress) superseded(key string) bool {
	name := nameOf(key)
	return p.Rounds[name] > 0 && key != p.current(name)
}

// complete records the event in composite events and returns those that it
// completes.
func (p *stateProgram) complete(t *transit) (done []string, recorded bool) {
	for _, c := range p.composites {
		name := strings.TrimPrefix(c.key, compositePrefix)
		if match(c.parts, t.key) == nil || slices.Contains(t.progress.Seen[name], t.key) {
			continue
		}
		if t.progress.Seen == nil {
			t.progress.Seen = map[string][]string{}
		}
		t.progress.Seen[name] = append(t.progress.Seen[name], t.key)
		recorded = true
		keys := map[string]bool{}
		for _, part := range c.parts {
			keys[part.key] = true
		}
		if len(t.progress.Seen[name]) == len(keys) {
			done = append(done, name)
		}
	}
	return done, recorded
}

func compositesOf(states []*state) []source {
	var all []source
	for _, s := range states {
		for _, tr := range s.on {
			for _, src := range tr.sources {
				if len(src.parts) > 0 && match(all, src.key) == nil {
					all = append(all, src)
				}
			}
		}
	}
	return all
}

func (p *stateProgram) returned(t *transit, calls []call) {
	for _, c := range calls {
		p.returnedOne(t, c)
	}
}

func (p *stateProgram) returnedOne(t *transit, c call) {
	s := t.progress.Steps[c.key]
	if s == nil || s.Status != calling {
		return
	}
	t.key, t.value, t.src = returnedPrefix+c.name, nil, nil
	s.Status = done
	if c.err != nil {
		s.Status, s.Error = failed, c.err.Error()
		t.key = failedPrefix + c.name
	} else if c.action.apply != nil {
		c.action.apply(t.state, c.result)
	}
	if taken, _ := p.happen(t); !taken && c.err != nil && t.instance.Status == Running {
		t.stuck(fmt.Sprintf("call %q failed and state %q has no transition for that: %v", c.key, t.progress.State, c.err))
	}
}

func (p *stateProgram) wake(t *transit) {
	for t.instance.Status == Running {
		name := ""
		for _, n := range slices.Sorted(maps.Keys(t.progress.Timers)) {
			due := t.progress.Timers[n]
			if !due.After(t.now) && (name == "" || due.Before(t.progress.Timers[name])) {
				name = n
			}
		}
		if name == "" {
			return
		}
		delete(t.progress.Timers, name)
		t.key, t.value, t.src = timeoutPrefix+name, nil, nil
		p.happen(t)
	}
}

func (p *stateProgram) control(t *transit, c control) error {
	if c.Kind != controlRetry {
		return eventbus.Permanent(fmt.Errorf("%w: a saga of states is told by a signal", ErrNotPossible))
	}
	if t.instance.Status != Stuck {
		return eventbus.Permanent(fmt.Errorf("%w: it is %s, not stuck", ErrNotPossible, t.instance.Status))
	}
	t.instance.Status, t.instance.Error, t.progress.Resume = t.progress.Resume, "", ""
	for _, s := range t.progress.Steps {
		if s.Status == failed {
			s.Status, s.Error = calling, ""
			s.Attempt++
		}
	}
	t.calls = p.pending(t.progress)
	return nil
}

func (p *stateProgram) nextDue(pr *progress) time.Time {
	var next time.Time
	for _, due := range pr.Timers {
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return next
}

func (p *stateProgram) position(pr *progress) string { return pr.State }

func (p *stateProgram) sources() []source {
	var all []source
	for _, s := range p.states {
		all = append(all, s.ignores...)
		for _, tr := range s.on {
			for _, src := range tr.sources {
				all = append(append(all, src), src.parts...)
			}
		}
	}
	return slices.DeleteFunc(all, func(src source) bool { return src.decode == nil })
}

func (p *stateProgram) pending(pr *progress) []call {
	var all []call
	for _, s := range p.states {
		for _, tr := range s.on {
			for _, e := range tr.do {
				key := pr.current(e.name)
				st := pr.Steps[key]
				if e.kind != doAction || e.action.kind != invoke || st == nil || st.Status != calling ||
					slices.ContainsFunc(all, func(c call) bool { return c.key == key }) {
					continue
				}
				all = append(all, e.call(key))
			}
		}
	}
	return all
}
