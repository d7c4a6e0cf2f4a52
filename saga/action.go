package saga

import (
	"context"
	"encoding/json"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
)

// Action is what a step does, forward or to compensate: it sends a command, calls
// a function, or needs nothing. Make one with Send, Call or NotNeeded.
type Action[S any] struct{ action }

type actionKind int

const (
	nothing actionKind = iota // undeclared
	notNeeded
	send
	invoke
	startChild
)

// action is an Action without its types.
type action struct {
	kind    actionKind
	topic   string // send
	message func(ctx context.Context, to message.Publisher, state any, opts ...eventbus.PublishOption) (*message.Message, error)
	call    func(ctx context.Context, state any) (result any, err error)
	apply   func(state, result any)
	policy  Policy
	reason  string // notNeeded

	// startChild
	child        string
	childState   func(state any) (json.RawMessage, error)
	undoesItself bool
}

// Send sends a command, an event of topic, made from the state. It is written to
// the outbox in the transaction of the transition. It carries the saga's name,
// the instance's id and the step's key in its metadata, for Participant, and is
// ordered by the instance unless the topic has a key of its own.
func Send[S, C any](topic eventbus.Topic[C], command func(s S) C) Action[S] {
	a := action{kind: send, topic: topic.Name()}
	a.message = func(ctx context.Context, to message.Publisher, state any, opts ...eventbus.PublishOption) (*message.Message, error) {
		return topic.Message(ctx, to, command(*state.(*S)), opts...)
	}
	return Action[S]{a}
}

// Policy calls a function under the policies of package resilience, or others.
type Policy interface {
	Do(ctx context.Context, fn func(ctx context.Context) error) error
}

// CallOption configures a Call.
type CallOption func(*action)

// Through has the function called through p, within each attempt of the step.
func Through(p Policy) CallOption { return func(a *action) { a.policy = p } }

// Call calls a function: code of the service, a REST or gRPC client. apply
// records its result in the state and may be nil. The function runs outside of
// transactions and, after a crash, again: give its effects the idempotency key
// that KeyOf(ctx) returns. An error that is permanent (eventbus.Permanent) is the
// step's failure, and says that nothing was done; others are tried again as the
// step's Retry says.
func Call[S, R any](fn func(ctx context.Context, s S) (R, error), apply func(s *S, r R), opts ...CallOption) Action[S] {
	a := action{kind: invoke}
	a.call = func(ctx context.Context, state any) (any, error) { return fn(ctx, *state.(*S)) }
	if apply != nil {
		a.apply = func(state, result any) { apply(state.(*S), result.(R)) }
	}
	for _, opt := range opts {
		opt(&a)
	}
	return Action[S]{a}
}

// NotNeeded says that there is nothing to compensate, and why.
func NotNeeded[S any](reason string) Action[S] {
	return Action[S]{action{kind: notNeeded, reason: reason}}
}

// Metadata keys of commands.
const (
	MetadataSaga     = "ce_saga"     // the saga's name
	MetadataInstance = "ce_sagaid"   // the instance's id
	MetadataStep     = "ce_sagastep" // the step's key, the same for its action and its compensation
)

type keyOfCall struct{}

// KeyOf returns the idempotency key of the call that ctx belongs to: the same for
// all attempts at it, another for each step, direction and instance.
func KeyOf(ctx context.Context) string {
	k, _ := ctx.Value(keyOfCall{}).(string)
	return k
}
