package saga

import (
	"slices"
	"strings"
)

func (p *stateProgram) validate(ps *problems, startedBy []source) {
	names := map[string]bool{}
	for _, s := range p.states {
		switch {
		case s.name == "":
			ps.add("a state has no Name")
		case names[s.name]:
			ps.add("two states have the name %q", s.name)
		}
		names[s.name] = true
		p.validateState(ps, s)
	}
	if p.states[0].final != "" {
		ps.add("state %q: the first state is final", p.states[0].name)
	}
	if len(startedBy) > 0 {
		for _, src := range startedBy {
			if !p.handled(src.key) {
				ps.add("StartedBy: no state handles %q", src.key)
			}
		}
	}
	p.validatePaths(ps)
	p.validateNames(ps)
	p.validateLate(ps)
}

func (p *stateProgram) validateState(ps *problems, s *state) {
	if s.final != "" && s.final != Completed && s.final != Compensated {
		ps.add("state %q: Final must be Completed or Compensated, got %q", s.name, s.final)
	}
	if s.final != "" && len(s.on) > 0 {
		ps.add("state %q: it is final and has transitions", s.name)
	}
	certain := map[string]bool{}
	for i, tr := range s.on {
		if len(tr.sources) == 0 {
			ps.add("state %q: transition %d has no Event", s.name, i+1)
		}
		if tr.goTo != "" && p.find(tr.goTo) == nil {
			ps.add("state %q: transition %d goes to %q, which is no state", s.name, i+1, tr.goTo)
		}
		for _, src := range tr.sources {
			if certain[src.key] {
				ps.add("state %q: two transitions for %q: the first has no If, so the second is never taken", s.name, src.key)
			}
			certain[src.key] = certain[src.key] || tr.cond == nil
			if strings.HasPrefix(src.key, compositePrefix) && len(src.parts) < 2 {
				ps.add("state %q: %q needs two events at least", s.name, src.key)
			}
			if match(s.ignores, src.key) != nil {
				ps.add("state %q: %q is both handled and ignored", s.name, src.key)
			}
		}
	}
}

// validatePaths finds states that can't be reached, or not be left.
func (p *stateProgram) validatePaths(ps *problems) {
	reached := p.reachable(p.states[0])
	for _, s := range p.states {
		if !reached[s] {
			ps.add("state %q can't be reached", s.name)
			continue
		}
		if s.final != "" {
			continue
		}
		ends := false
		for next := range p.reachable(s) {
			ends = ends || next.final != ""
		}
		if !ends {
			ps.add("state %q is a dead end: no final state can be reached from it", s.name)
		}
		if !s.noTimeout && !p.hasTimeout(s) {
			ps.add("state %q waits without a Timeout; NoTimeout says that it may wait for ever", s.name)
		}
	}
}

// reachable are the states on all paths from s, itself included.
func (p *stateProgram) reachable(s *state) map[*state]bool {
	seen := map[*state]bool{s: true}
	for todo := []*state{s}; len(todo) > 0; todo = todo[1:] {
		for _, tr := range todo[0].on {
			if next := p.find(tr.goTo); next != nil && !seen[next] {
				seen[next] = true
				todo = append(todo, next)
			}
		}
	}
	return seen
}

// hasTimeout reports whether something happens in s for certain: a timer, or the
// return of a call.
func (p *stateProgram) hasTimeout(s *state) bool {
	return slices.ContainsFunc(s.on, func(tr transition) bool {
		return slices.ContainsFunc(tr.sources, func(src source) bool {
			return strings.HasPrefix(src.key, timeoutPrefix) || strings.HasPrefix(src.key, failedPrefix)
		})
	})
}

// usedNames are the names that effects use: of timers, of calls, of all that is
// done, and of what is begun anew.
type usedNames struct{ timers, calls, done, anew map[string]bool }

func (p *stateProgram) usedNames(ps *problems) usedNames {
	u := usedNames{map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for _, s := range p.states {
		for _, tr := range s.on {
			for _, e := range tr.do {
				u.add(ps, s, e)
			}
		}
	}
	return u
}

func (u usedNames) add(ps *problems, s *state, e effect) {
	switch e.kind {
	case schedule:
		u.timers[e.name] = true
		if e.after <= 0 {
			ps.add("state %q: Schedule(%q): the time must be positive, got %v", s.name, e.name, e.after)
		}
	case anew:
		u.anew[e.name] = true
	case doAction:
		u.done[e.name] = true
		if strings.ContainsAny(e.name, "#:") {
			ps.add("state %q: Do(%q): '#' and ':' are not allowed", s.name, e.name)
		}
		switch e.action.kind {
		case invoke:
			u.calls[e.name] = true
		case send, startChild:
		default:
			ps.add("state %q: Do(%q) does nothing", s.name, e.name)
		}
	}
}

// validateNames finds timers and calls that nobody handles or makes.
func (p *stateProgram) validateNames(ps *problems) {
	used := p.usedNames(ps)
	for name := range sorted(used.anew) {
		if !used.done[name] {
			ps.add("Anew(%q): nothing is done under that name", name)
		}
	}
	for name := range sorted(used.timers) {
		if !p.handled(timeoutPrefix + name) {
			ps.add("no state handles Timeout(%q), which is scheduled", name)
		}
	}
	for name := range sorted(used.calls) {
		if !p.handled(failedPrefix + name) {
			ps.add("no state handles Failed(%q), so an instance whose call fails would be stuck", name)
		}
	}
	for _, s := range p.states {
		for _, tr := range s.on {
			for _, src := range tr.sources {
				p.validateSource(ps, s, src, used)
			}
		}
	}
}

func (p *stateProgram) validateSource(ps *problems, s *state, src source, used usedNames) {
	if name, ok := strings.CutPrefix(src.key, timeoutPrefix); ok && !used.timers[name] {
		ps.add("state %q handles Timeout(%q), which is never scheduled", s.name, name)
	}
	for _, prefix := range [...]string{returnedPrefix, failedPrefix} {
		if name, ok := strings.CutPrefix(src.key, prefix); ok && !used.calls[name] {
			ps.add("state %q handles the end of call %q, which is never made", s.name, name)
		}
	}
}

// validateLate finds events that can arrive in a state where nothing takes them:
// those that a state waited for which was left because of something else, a
// timeout or a signal.
func (p *stateProgram) validateLate(ps *problems) {
	reported := map[[2]string]bool{}
	for _, s := range p.states {
		for _, tr := range s.on {
			next := p.find(tr.goTo)
			if next == nil || next == s || !interrupts(tr) {
				continue
			}
			for _, awaited := range s.on {
				for _, src := range awaited.sources {
					if src.topic == "" || match(tr.sources, src.key) != nil {
						continue
					}
					for late := range p.reachable(next) {
						k := [2]string{late.name, src.key}
						if late.final == "" && match(late.ignores, src.key) == nil && !p.handledFrom(late, src.key) && !reported[k] {
							reported[k] = true
							ps.add("state %q: %q can arrive late, after %q was left on %q; handle or ignore it", late.name, src.key, s.name, tr.sources[0].key)
						}
					}
				}
			}
		}
	}
}

// interrupts reports whether a transition leaves while answers may be on their way.
func interrupts(tr transition) bool {
	return slices.ContainsFunc(tr.sources, func(src source) bool {
		return strings.HasPrefix(src.key, timeoutPrefix) || strings.HasPrefix(src.key, signalPrefix)
	})
}

// handledFrom reports whether s or a state after it handles an event.
func (p *stateProgram) handledFrom(s *state, key string) bool {
	for next := range p.reachable(s) {
		for _, tr := range next.on {
			if match(tr.sources, key) != nil {
				return true
			}
		}
	}
	return false
}
