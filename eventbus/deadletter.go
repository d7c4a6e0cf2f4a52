package eventbus

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Metadata keys that a dead letter has beside those of the event.
const (
	MetadataDeadTopic    = "millrace_dead_topic"
	MetadataDeadGroup    = "millrace_dead_group"
	MetadataDeadCause    = "millrace_dead_cause"
	MetadataDeadStack    = "millrace_dead_stack"
	MetadataDeadAttempts = "millrace_dead_attempts"
	MetadataDeadTime     = "millrace_dead_time"

	// MetadataDeadAgain says, on the dead letter of a dead letter, why handling
	// that failed; the other keys are still those of the first failure.
	MetadataDeadAgain = "millrace_dead_again"

	// MetadataRedrive is "<topic>/<group>" on a dead letter that was sent back:
	// other groups of that topic acknowledge it unseen. Handlers don't see it.
	MetadataRedrive = "millrace_redrive"
)

// Bounds that keep a dead letter's metadata small, in bytes.
const (
	maxDeadCause = 2048
	maxDeadStack = 8192
)

// DeadLetter is an event that a handler could not handle. Its payload and
// attributes are the original ones.
type DeadLetter struct {
	// Topic and Group on which handling failed.
	Topic, Group string
	// Cause is the text of the last error.
	Cause string
	// Stack of the panic, if that was the cause.
	Stack string
	// Attempts is how often the event was delivered to the group, each time with
	// the tries of the retry policy.
	Attempts int
	// Time of the last attempt.
	Time time.Time
	// Again says why handling the dead letter itself failed, if it did.
	Again string
	// Message is the original event. Edit its payload before Redrive if need be.
	Message *message.Message
}

// ReadDeadLetter reads a message of a dead-letter topic.
func ReadDeadLetter(m *message.Message) (DeadLetter, error) {
	md := m.Metadata
	d := DeadLetter{Topic: md[MetadataDeadTopic], Group: md[MetadataDeadGroup], Cause: md[MetadataDeadCause], Stack: md[MetadataDeadStack], Again: md[MetadataDeadAgain]}
	if d.Topic == "" || d.Group == "" {
		return d, Permanent(fmt.Errorf("eventbus: event %s is not a dead letter: %s or %s is missing", m.UUID, MetadataDeadTopic, MetadataDeadGroup))
	}
	var err error
	if d.Attempts, err = strconv.Atoi(md[MetadataDeadAttempts]); err != nil {
		return d, Permanent(fmt.Errorf("eventbus: dead letter %s: %s: %w", m.UUID, MetadataDeadAttempts, err))
	}
	if d.Time, err = time.Parse(time.RFC3339Nano, md[MetadataDeadTime]); err != nil {
		return d, Permanent(fmt.Errorf("eventbus: dead letter %s: %s: %w", m.UUID, MetadataDeadTime, err))
	}
	d.Message = &message.Message{UUID: m.UUID, Metadata: maps.Clone(md), Payload: bytes.Clone(m.Payload)}
	for _, name := range [...]string{MetadataDeadTopic, MetadataDeadGroup, MetadataDeadCause, MetadataDeadStack, MetadataDeadAttempts, MetadataDeadTime, MetadataDeadAgain} {
		delete(d.Message.Metadata, name)
	}
	return d, nil
}

// Redrive sends the event back to its topic, for the group that failed on it
// and no other. The event keeps its id, so an inbox that did apply it drops it,
// and so do inboxes downstream with what it published before it failed. An expiry
// time that has passed is left out.
func (d DeadLetter) Redrive(ctx context.Context, to message.Publisher) error {
	m := d.Message.Copy()
	m.Metadata[MetadataRedrive] = d.Topic + "/" + d.Group
	if t, err := parseExpiry(m.UUID, m.Metadata[MetadataExpiryTime]); err == nil && !time.Now().Before(t) {
		delete(m.Metadata, MetadataExpiryTime)
	}
	m.SetContext(ctx)
	return to.Publish(d.Topic, m)
}

// markDead makes m, a copy of an event, a dead letter.
func markDead(m *message.Message, at Delivery, v verdict) {
	delete(m.Metadata, driver.MetadataDue) // it has been; a broker without due times would refuse it
	if _, dead := m.Metadata[MetadataDeadTopic]; dead {
		m.Metadata[MetadataDeadAgain] = truncate(fmt.Sprintf("group %q: %s", at.Group, v.text), maxDeadCause)
		return
	}
	m.Metadata[MetadataDeadTopic] = at.Topic
	m.Metadata[MetadataDeadGroup] = at.Group
	m.Metadata[MetadataDeadCause] = truncate(v.text, maxDeadCause)
	m.Metadata[MetadataDeadAttempts] = strconv.Itoa(at.Attempt)
	m.Metadata[MetadataDeadTime] = time.Now().UTC().Format(time.RFC3339Nano)
	if len(v.stack) > 0 {
		m.Metadata[MetadataDeadStack] = truncate(string(v.stack), maxDeadStack)
	}
}

// truncate cuts s between characters.
func truncate(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	cut := limit - 3
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// PanicError is the error of a handler that panicked.
type PanicError struct {
	Value any
	Stack []byte
}

// Error returns the panic's value as text.
func (e *PanicError) Error() string { return fmt.Sprintf("handler panicked: %v", e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
