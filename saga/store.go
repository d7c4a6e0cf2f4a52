package saga

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Errors that callers may decide on, with errors.Is.
var (
	// ErrNoInstance is in the chain of errors about an instance that is not there.
	ErrNoInstance = errors.New("there is no such instance")
	// ErrExists is in the chain of errors about an instance that is there already.
	ErrExists = errors.New("the instance exists already")
	// ErrNotPossible is in the chain of errors about an operator's act that the
	// instance is not in a state for.
	ErrNotPossible = errors.New("that is not possible for the instance")
	// ErrChanged is in the chain of errors about a definition that has changed
	// under its version.
	ErrChanged = errors.New("the definition has changed and its version has not")

	// ErrConflict is what a Store returns for a Commit whose instance has another
	// revision by now. Orchestrators load it and try again.
	ErrConflict = errors.New("the instance has another revision")
	// ErrDuplicate is what a Store returns for a Commit whose event was handled
	// before.
	ErrDuplicate = errors.New("the event was handled before")
)

// Store keeps instances. A conformance suite, sagatest.RunStore, says what it
// must do. Its methods are safe for concurrent use.
type Store interface {
	// Load returns an instance, or an error with ErrNoInstance in its chain.
	Load(ctx context.Context, saga, id string) (Instance, error)
	// Commit makes a transition durable, all of it or nothing.
	Commit(ctx context.Context, c Commit) error
	// History returns the transitions of an instance, oldest first.
	History(ctx context.Context, saga, id string) ([]Entry, error)
	// List returns instances in the order of their last transition, newest first.
	List(ctx context.Context, q Query) ([]Instance, error)
	// Count returns how many instances there are by status.
	Count(ctx context.Context, saga string) (map[Status]int64, error)
	// Pin records the fingerprint of a definition's version, if there is none, and
	// returns the one recorded.
	Pin(ctx context.Context, saga string, version int, fingerprint string) (string, error)
}

// Commit is one transition: what Store.Commit writes in one transaction.
type Commit struct {
	// Consumer, Source and EventID mark the event as handled, unless EventID is
	// empty. If they are marked, nothing is written and ErrDuplicate returned.
	Consumer, Source, EventID string
	// Instance after the transition. Its Revision is one more than that of the
	// stored instance, 1 if there is none, else ErrConflict is returned.
	Instance Instance
	// Entry for the history.
	Entry Entry
	// Messages for the outbox, in order.
	Messages []Message
}

// Message is a message for the outbox.
type Message struct {
	Topic   string
	Message *message.Message
}

// Query selects instances.
type Query struct {
	Saga   string   // required
	Status []Status // none: any
	// ID selects one instance by a prefix of its id.
	ID string
	// Before selects instances whose last transition was earlier: for pages, and for
	// what has not moved for long. The zero time: any.
	Before time.Time
	// BeforeID selects, of those whose last transition was at the time of Before, the
	// ids before it too. The next page has the Updated and the ID of the last instance
	// of this one.
	BeforeID string
	// RecoverableAt selects running and compensating instances whose RecoverAt is
	// set and not after it. The zero time: any.
	RecoverableAt time.Time
	Limit         int // defaults to 100, at most 1,000
}
