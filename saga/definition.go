package saga

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"github.com/millrace-go/millrace/eventbus"
)

// Definition is a saga as data: a state of the user's, the events that start it,
// and either Steps or States. It is checked by Validate, and by the Orchestrator
// when it starts; it can be drawn by Mermaid and DOT.
type Definition[S any] struct {
	// Name of the saga, part of what is stored and of topics' names.
	Name string
	// Version of the definition. Instances stay with the version that they began
	// with; several versions run side by side. Change it with every change of Steps
	// or States: a definition that has changed under its version is refused.
	Version int
	// StateVersion is that of S's schema; older states pass through Migrations when
	// they are loaded. 0 and 1 are the same.
	StateVersion int
	// Migrations lead from each older version of the state to the next.
	Migrations []Migration
	// StartedBy are the events that begin an instance: the first to come does. Their
	// order is free; a later one is an event like others.
	StartedBy Event[S]

	// Steps, in order, is one notation.
	Steps []Node[S]
	// CompensateInOrder compensates the step that began first first, instead of
	// last.
	CompensateInOrder bool

	// States is the other notation. An instance begins in the first, and the event
	// that began it is the first that happens there.
	States []State[S]
}

// Migration leads a state of version From to the next. Make one with Migrate.
type Migration struct {
	From int
	up   func(json.RawMessage) (json.RawMessage, error)
}

// Migrate makes a Migration of a function between the Go types of two versions
// of a state.
func Migrate[Old, New any](from int, up func(Old) (New, error)) Migration {
	return Migration{from, func(raw json.RawMessage) (json.RawMessage, error) {
		var before Old
		if err := json.Unmarshal(raw, &before); err != nil {
			return nil, err
		}
		after, err := up(before)
		if err != nil {
			return nil, err
		}
		return json.Marshal(after)
	}}
}

// schema is the type of a state, and how older versions become it.
type schema struct {
	stateVersion int
	migrations   map[int]Migration
	fresh        func() any // a *S
	what         string     // the Go type
}

// blueprint is a Definition without its types.
type blueprint struct {
	schema
	name      string
	version   int
	startedBy []source
	program   program
	all       []source // that can come from outside
	problems  []error
	control   func() eventbus.Topic[control]
}

// Untyped is a Definition of any state.
type Untyped interface{ blueprint() *blueprint }

func (d Definition[S]) schema() schema {
	s := schema{
		stateVersion: max(1, d.StateVersion), migrations: map[int]Migration{},
		fresh: func() any { return new(S) }, what: reflect.TypeFor[S]().String(),
	}
	for _, m := range d.Migrations {
		s.migrations[m.From] = m
	}
	return s
}

func (d Definition[S]) blueprint() *blueprint {
	b := &blueprint{
		schema: d.schema(), name: d.Name, version: d.Version, startedBy: d.StartedBy.sources,
		control: sync.OnceValue(func() eventbus.Topic[control] { return controlTopic(d.Name) }),
	}
	if len(d.States) > 0 {
		var states []*state
		for _, s := range d.States {
			states = append(states, s.untyped())
		}
		b.program = newStateProgram(states)
	} else {
		b.program = newStepProgram(nodesOf(d.Steps), d.CompensateInOrder)
	}
	b.all = append(slices.Clone(b.startedBy), b.program.sources()...)
	if len(d.Steps) > 0 && len(d.States) > 0 {
		b.problems = append(b.problems, fmt.Errorf("it has both Steps and States; choose one notation"))
	}
	return b
}

// instance returns a new instance, not yet stored.
func (b *blueprint) instance(id string) Instance {
	return Instance{Saga: b.name, Version: b.version, ID: id, Status: Running, StateVersion: b.stateVersion, Created: now()}
}

// decode returns the state of an instance, brought to the current version.
func (s *schema) decode(raw json.RawMessage, version int) (any, error) {
	for v := max(1, version); v < s.stateVersion; v++ {
		m, ok := s.migrations[v]
		if !ok {
			return nil, fmt.Errorf("the state is of version %d, the definition's is %d, and there is no Migration from %d", version, s.stateVersion, v)
		}
		var err error
		if raw, err = m.up(raw); err != nil {
			return nil, fmt.Errorf("migration of the state from version %d: %w", v, err)
		}
	}
	if version > s.stateVersion {
		return nil, fmt.Errorf("the state is of version %d, which is newer than the definition's %d", version, s.stateVersion)
	}
	state := s.fresh()
	if len(raw) == 0 {
		return state, nil
	}
	if err := json.Unmarshal(raw, state); err != nil {
		return nil, fmt.Errorf("the state can't be decoded as %s: %w", s.what, err)
	}
	return state, nil
}
