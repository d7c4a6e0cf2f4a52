package resilience

import "time"

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventRetry       EventKind = "retry"        // an attempt failed and another follows after Delay
	EventGaveUp      EventKind = "gave_up"      // no other attempt follows; Err is a *RetryError
	EventStateChange EventKind = "state_change" // of a circuit breaker, From and To
	EventRejected    EventKind = "rejected"     // a call was turned away
	EventTimedOut    EventKind = "timed_out"    // a call had taken too long
	EventHedged      EventKind = "hedged"       // a second attempt begins beside a slow one
	EventFellBack    EventKind = "fell_back"    // the fallback was asked
	EventInjected    EventKind = "injected"     // a chaos policy did something
)

// Event is something that a policy did, off the path of calls that go well.
type Event struct {
	Kind   EventKind
	Policy string // the policy's name
	Type   string // the policy's kind, as in Description

	Attempt int           // the attempt that failed, of EventRetry and EventGaveUp, or that begins, of EventHedged; the first is 1
	Delay   time.Duration // before the next attempt, of EventRetry
	Err     error         // what made it happen
	From    State         // of EventStateChange
	To      State
}

// Observer is told about events. It is called in the goroutine of the call, with
// no lock held, and holds up that call: it must return soon. It may be called
// concurrently, so state changes that follow each other closely may arrive out
// of order.
type Observer func(Event)

func (o Observer) tell(e Event) {
	if o != nil {
		o(e)
	}
}
