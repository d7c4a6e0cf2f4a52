package saga

import "time"

// State is a state of a saga that is written as a state machine.
type State[S any] struct {
	// Name is unique in the definition and part of what is stored.
	Name string
	// On are the transitions; of those for one event, the first whose If is true or
	// nil is taken.
	On []Transition[S]
	// Ignores are events that may arrive in this state and change nothing. One that
	// is neither handled nor ignored here waits until the instance is in a state
	// that handles it.
	Ignores Event[S]
	// NoTimeout says that an instance may wait in this state for ever.
	NoTimeout bool
	// Final, Completed or Compensated, ends the instance.
	Final Status
}

// Transition is what an event does in a state.
type Transition[S any] struct {
	// Event is what happens: On, Signal, AnyOf, or one of Timeout, Returned, Failed
	// and AllOf.
	Event Event[S]
	// If, if set, must return true for the state as the event has left it.
	If func(s S) bool
	// Do is done in order.
	Do []Effect[S]
	// GoTo is the next state. Empty means to stay.
	GoTo string
}

// Effect is what a transition does beside changing the state. Make one with Do,
// Anew, Schedule, Unschedule or Update.
type Effect[S any] struct{ effect }

type effect struct {
	action action
	name   string // of a call or a timer
	after  time.Duration
	kind   effectKind
	update func(state any)
}

type effectKind int

const (
	doAction effectKind = iota
	schedule
	unschedule
	update
	anew
)

// Do sends a command or calls a function. A call's answer is the event
// Returned(name) or Failed(name). The name of a command is that of the step in its
// metadata: a command and the one that undoes it have the same, or else a
// Participant finds nothing to undo. For the same reason a command that is sent
// again under its name is the same one again, which a Participant does not repeat;
// and so it is with the idempotency key of a call. Anew begins another one.
func Do[S any](name string, a Action[S]) Effect[S] {
	return Effect[S]{effect{kind: doAction, name: name, action: a.action}}
}

// Anew makes what is done under a name from here on another deed than what was
// done under it before: a command that a Participant carries out once more, a call
// with an idempotency key of its own, another sub-saga. It belongs before the Do of
// a loop of states. What still comes of the earlier one is ignored, if the answer
// says what it answers (Answering); and it can't be undone under the name any more.
func Anew[S any](name string) Effect[S] { return Effect[S]{effect{kind: anew, name: name}} }

// Schedule has the event Timeout(name) happen after d, unless it is unscheduled or
// scheduled anew before.
func Schedule[S any](name string, d time.Duration) Effect[S] {
	return Effect[S]{effect{kind: schedule, name: name, after: d}}
}

// Unschedule takes a Schedule back.
func Unschedule[S any](name string) Effect[S] {
	return Effect[S]{effect{kind: unschedule, name: name}}
}

// Update changes the state.
func Update[S any](f func(s *S)) Effect[S] {
	return Effect[S]{effect{kind: update, update: func(state any) { f(state.(*S)) }}}
}

// Timeout is the event of a Schedule whose time has come.
func Timeout[S any](name string) Event[S] { return internal[S](timeoutPrefix + name) }

// Returned is the event of a call that has returned without an error.
func Returned[S any](name string) Event[S] { return internal[S](returnedPrefix + name) }

// Failed is the event of a call that has failed for good.
func Failed[S any](name string) Event[S] { return internal[S](failedPrefix + name) }

// AllOf is a composite event: it happens when the last of the events has, in
// whatever order they came and whichever transitions they had. Its name is part
// of what is stored.
func AllOf[S any](name string, events ...Event[S]) Event[S] {
	e := internal[S](compositePrefix + name)
	for _, part := range events {
		e.sources[0].parts = append(e.sources[0].parts, part.sources...)
	}
	return e
}

const (
	timeoutPrefix   = "timeout:"
	returnedPrefix  = "returned:"
	failedPrefix    = "failed:"
	compositePrefix = "all of:"
)

func internal[S any](key string) Event[S] { return Event[S]{[]source{{key: key}}} }

// state is a State without its types.
type state struct {
	name      string
	on        []transition
	ignores   []source
	noTimeout bool
	final     Status
}

type transition struct {
	sources []source
	cond    func(state any) bool
	do      []effect
	goTo    string
}

func (s State[S]) untyped() *state {
	u := &state{name: s.Name, ignores: s.Ignores.sources, noTimeout: s.NoTimeout, final: s.Final}
	for _, t := range s.On {
		ut := transition{sources: t.Event.sources, cond: condition(t.If), goTo: t.GoTo}
		for _, e := range t.Do {
			ut.do = append(ut.do, e.effect)
		}
		u.on = append(u.on, ut)
	}
	return u
}
