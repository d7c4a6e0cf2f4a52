package sagatest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/saga"
)

// Tx is a transaction of a participant: what it writes and publishes takes
// effect when it commits, all of it or nothing. It is a message.Publisher, which
// stands for the outbox. It is for one goroutine, and until the function that got
// it returns.
type Tx struct {
	p        *Participant
	cause    string // of what it publishes
	mark     bool   // remember the cause as handled
	version  int
	data     map[string]json.RawMessage // nil: deleted
	barrier  map[string]barrierStep
	messages []sent
}

func (p *Participant) begin(cause string) *Tx {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &Tx{p: p, cause: cause, version: p.version}
}

// Set gives key a value, which is kept as JSON.
func (tx *Tx) Set(key string, value any) {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("value of %q: %v", key, err))
	}
	tx.write(key, raw)
}

// Delete takes the value of key away.
func (tx *Tx) Delete(key string) { tx.write(key, nil) }

func (tx *Tx) write(key string, raw json.RawMessage) {
	if tx.data == nil {
		tx.data = map[string]json.RawMessage{}
	}
	tx.data[key] = raw
}

func (tx *Tx) value(key string) json.RawMessage {
	if raw, ok := tx.data[key]; ok {
		return raw
	}
	return tx.p.value(key)
}

// Source names the publisher: the participant.
func (tx *Tx) Source() string { return tx.p.name }

// Publish implements message.Publisher. What a repeated transaction publishes
// has the same ids again.
func (tx *Tx) Publish(topic string, messages ...*message.Message) error {
	for _, m := range messages {
		m.Metadata[eventbus.MetadataCausationID] = tx.cause
		tx.p.w.derive(m, tx.p.name, tx.cause, topic, fmt.Sprint(len(tx.messages)))
		tx.messages = append(tx.messages, sent{topic, m})
	}
	return nil
}

// Close implements message.Publisher. It does nothing.
func (tx *Tx) Close() error { return nil }

// barrierStep is what a barrier knows about a step that a command has arrived for.
type barrierStep struct{ Compensated bool }

// Forward is idempotency.Barrier's, for the step that the metadata of a command
// names.
func (tx *Tx) Forward(metadata map[string]string) idempotency.Verdict {
	key, s, known := tx.step(metadata)
	switch {
	case !known:
		tx.barrier[key] = s
		return idempotency.Proceed
	case s.Compensated:
		return idempotency.Hanging
	}
	return idempotency.Duplicate
}

// Compensate is idempotency.Barrier's, for the step that the metadata of a
// command names.
func (tx *Tx) Compensate(metadata map[string]string) idempotency.Verdict {
	key, s, known := tx.step(metadata)
	if s.Compensated {
		return idempotency.Duplicate
	}
	tx.barrier[key] = barrierStep{Compensated: true}
	if !known {
		return idempotency.NullCompensation
	}
	return idempotency.Proceed
}

func (tx *Tx) step(metadata map[string]string) (key string, s barrierStep, known bool) {
	key = metadata[saga.MetadataSaga] + "/" + metadata[saga.MetadataInstance] + "/" + metadata[saga.MetadataStep]
	if tx.barrier == nil {
		tx.barrier = map[string]barrierStep{}
	}
	if s, known = tx.barrier[key]; known {
		return key, s, true
	}
	tx.p.mu.Lock()
	defer tx.p.mu.Unlock()
	s, known = tx.p.barrier[key]
	return key, s, known
}

// commit reports false if another transaction has committed meanwhile.
func (tx *Tx) commit() bool {
	p := tx.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.version != tx.version {
		return false
	}
	tx.apply()
	return true
}

// publish sends what was published in the transaction.
func (tx *Tx) publish() error {
	tx.p.w.trace.commits(tx)
	for _, s := range tx.messages {
		if err := tx.p.w.send(s.topic, s.m, true); err != nil {
			return err
		}
	}
	return nil
}

// apply writes to the participant, which is locked.
func (tx *Tx) apply() {
	p := tx.p
	p.version++
	for key, raw := range tx.data {
		if raw == nil {
			delete(p.data, key)
		} else {
			p.data[key] = raw
		}
	}
	maps.Copy(p.barrier, tx.barrier)
	if tx.mark {
		p.inbox[tx.cause] = true
	}
	p.digest = p.describe()
}

// describe returns all that matters for what follows, but for the inbox, which
// matters for messages that are on their way.
func (p *Participant) describe() string {
	b := fmt.Appendf(nil, "%q", p.name)
	for _, key := range slices.Sorted(maps.Keys(p.data)) {
		b = fmt.Appendf(b, " %q=%s", key, p.data[key])
	}
	for _, key := range slices.Sorted(maps.Keys(p.barrier)) {
		b = fmt.Appendf(b, " %q:%v", key, p.barrier[key].Compensated)
	}
	return string(b)
}
