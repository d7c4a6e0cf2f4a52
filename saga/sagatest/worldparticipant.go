package sagatest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/saga"
)

// Participant is a service that takes part in sagas. It has a database of its own,
// keys with values, which its handlers use in transactions. All that it remembers
// must be there.
type Participant struct {
	w    *World
	name string

	mu      sync.Mutex
	version int // counts commits
	data    map[string]json.RawMessage
	inbox   map[string]bool        // messages that were handled
	barrier map[string]barrierStep // by saga, instance and step
	digest  string
}

func newParticipant(w *World, name string) *Participant {
	return &Participant{w: w, name: name, data: map[string]json.RawMessage{}, inbox: map[string]bool{}, barrier: map[string]barrierStep{}}
}

// Handle has p handle the commands of topic without any protection: fn runs at
// every delivery, in a transaction. It answers by publishing to tx, with
// saga.Answering(e.Metadata).
func Handle[C any](p *Participant, topic eventbus.Topic[C], fn func(ctx context.Context, tx *Tx, e eventbus.Event[C]) error) {
	handle(p, topic, false, fn)
}

// HandleOnce is Handle with an inbox: a message that comes again is dropped.
func HandleOnce[C any](p *Participant, topic eventbus.Topic[C], fn func(ctx context.Context, tx *Tx, e eventbus.Event[C]) error) {
	handle(p, topic, true, fn)
}

// HandleAction is saga.HandleAction for p: fn runs once for each step of each
// instance, and never after the step was compensated. otherwise, which may be
// nil, answers a command that is not to be done: a saga that repeats its command
// has not heard the answer.
func HandleAction[C any](p *Participant, topic eventbus.Topic[C], fn, otherwise func(ctx context.Context, tx *Tx, e eventbus.Event[C]) error) {
	guarded(p, topic, (*Tx).Forward, fn, otherwise)
}

// HandleCompensation is saga.HandleCompensation for p: fn runs once, and only if
// the action did. otherwise, which may be nil, answers where there is nothing to
// undo.
func HandleCompensation[C any](p *Participant, topic eventbus.Topic[C], fn, otherwise func(ctx context.Context, tx *Tx, e eventbus.Event[C]) error) {
	guarded(p, topic, (*Tx).Compensate, fn, otherwise)
}

func guarded[C any](p *Participant, topic eventbus.Topic[C], ask func(*Tx, map[string]string) idempotency.Verdict, fn, otherwise func(ctx context.Context, tx *Tx, e eventbus.Event[C]) error) {
	handle(p, topic, true, func(ctx context.Context, tx *Tx, e eventbus.Event[C]) error {
		if e.Metadata[saga.MetadataInstance] == "" || e.Metadata[saga.MetadataStep] == "" {
			return eventbus.Permanent(errors.New("the command does not say which step of which instance it is for"))
		}
		verdict := ask(tx, e.Metadata)
		switch {
		case verdict.Run():
			return fn(ctx, tx, e)
		case otherwise != nil:
			return otherwise(ctx, tx, e)
		}
		return nil
	})
}

func handle[C any](p *Participant, topic eventbus.Topic[C], once bool, fn func(ctx context.Context, tx *Tx, e eventbus.Event[C]) error) {
	c := p.w.consumer(topic.Name(), p.name, p.name, false)
	c.handles[0] = func(m *message.Message) error {
		e, err := topic.Decode(m)
		if err != nil {
			return err
		}
		return p.handle(e.ID, topic.Name(), once, func(tx *Tx) error { return fn(context.Background(), tx, e) })
	}
}

// handle handles a message in a transaction.
func (p *Participant) handle(id, topic string, once bool, fn func(tx *Tx) error) error {
	mark := topic + "/" + id
	if once && p.inbox[mark] {
		p.w.trace.note("%s has handled it before", p.name)
		return nil
	}
	tx := p.begin(mark)
	if err := p.protect(tx, fn); err != nil {
		p.w.trace.note("%s fails: %v", p.name, err)
		return err
	}
	tx.mark = once
	tx.commit()
	if err := tx.publish(); err != nil {
		return err
	}
	if p.w.crashesHandled() {
		return p.w.crash("after its commit")
	}
	return nil
}

// protect runs fn. A panic is a mistake in the test, or found by it.
func (p *Participant) protect(tx *Tx, fn func(tx *Tx) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = eventbus.Permanent(fmt.Errorf("participant %q panicked: %v", p.name, v))
			p.w.fail(err)
		}
	}()
	return fn(tx)
}

// Do runs fn in a transaction, for the functions of saga.Call: it stands for a
// remote call to p. The error is fn's or, in an exploration, that of an answer
// that was lost after the call has had its effect. fn runs again if another call
// has committed meanwhile. Do is safe for concurrent use.
func (p *Participant) Do(ctx context.Context, fn func(tx *Tx) error) error {
	for {
		tx := p.begin("call/" + saga.KeyOf(ctx))
		if err := fn(tx); err != nil {
			return err
		}
		if tx.commit() {
			return p.w.answerCall(tx)
		}
	}
}

// errLost is what a caller sees of an answer that does not come.
var errLost = errors.New("the answers of the calls were lost")

// Get returns the value of a key of the participant's, or of a transaction's, or
// the zero value.
func Get[T any](from interface {
	value(key string) json.RawMessage
}, key string) T {
	var v T
	if raw := from.value(key); raw != nil {
		_ = json.Unmarshal(raw, &v)
	}
	return v
}

// Keys returns the keys that have a value, in order.
func (p *Participant) Keys() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.data))
}

func (p *Participant) value(key string) json.RawMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.data[key]
}
