package saga

import (
	"encoding/json"
	"time"
)

// Status is where an instance is in its life.
type Status string

// The statuses of instances.
const (
	Running      Status = "running"
	Compensating Status = "compensating"
	Completed    Status = "completed"
	Compensated  Status = "compensated"
	// Stuck instances wait for an operator: see Instance.Error, Orchestrator.Retry
	// and Orchestrator.Skip.
	Stuck Status = "stuck"
)

// Ended reports whether nothing more will happen to an instance.
func (s Status) Ended() bool { return s == Completed || s == Compensated }

// moving reports whether an instance goes on without an operator.
func (s Status) moving() bool { return s == Running || s == Compensating }

// Instance is one run of a saga as it is stored.
type Instance struct {
	Saga    string // name of the definition
	Version int    // of the definition, which the instance keeps
	ID      string // within the saga

	// Revision counts transitions. A transition replaces the revision that it has
	// read, and no other.
	Revision int64
	Status   Status
	// State is the user's, as JSON, in version StateVersion of its schema.
	State        json.RawMessage
	StateVersion int
	// Progress is where the definition is, as JSON.
	Progress json.RawMessage
	// Wake is when the pending wake-up for the instance's timers comes; the zero
	// time if there is none.
	Wake time.Time
	// RecoverAt is when Orchestrator.Recover takes a running or compensating instance
	// up: it has calls under way, and if the process that makes them has died no
	// message makes it go on. The zero time if that can't be.
	RecoverAt time.Time
	// Error says why a stuck instance is stuck, or why it is or was compensated.
	Error string

	Created, Updated time.Time
}

// Entry is one transition in the history of an instance.
type Entry struct {
	Saga, ID string
	Revision int64 // after the transition
	At       time.Time
	// Event is what happened: a topic, "signal:" or "timeout:" and a name, "call:"
	// and a step, or an operator's act.
	Event string
	// EventID is the id of the message, if it was one.
	EventID string
	// From and To are what the instance was waiting for before and after: steps with
	// their status, or the state.
	From, To string
	// State after the transition, as JSON.
	State json.RawMessage
	// Emitted are the topics of the messages that the transition has written to the
	// outbox.
	Emitted []string
	// Note says more: why an event changed nothing, what went wrong.
	Note string
}
