package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// call is one Publish: its records, and what became of them. The client may hold
// the records longer than the caller waits, so they share no memory with the
// messages. Calls that were waited for are used again.
type call struct {
	records  []kgo.Record
	headers  []kgo.RecordHeader
	bytes    []byte
	finished chan struct{} // receives when nothing is pending

	// Not used again: the client may ask the context of a record after that is
	// settled.
	slots []slot

	pending atomic.Int32 // records that are sent and not settled
	failed  atomic.Int32 // records of this attempt
}

// slot is the context of a record and says what became of it.
type slot struct {
	context.Context
	call  *call
	state atomic.Uint32
	err   error // of an unsent record; written before state, and read when nothing is pending
}

const (
	unsent uint32 = iota
	sent
	accepted
)

var calls = sync.Pool{New: func() any { return &call{finished: make(chan struct{}, 1)} }}

// maxReused is how much memory of a call is worth keeping, in bytes.
const maxReused = 1 << 20

// metadataGuess is how long the metadata of a message is expected to be, to make
// room for it; finding out would take as long as copying it.
const metadataGuess = 256

// newCall copies messages into the records of a call.
func newCall(ctx context.Context, topic string, messages []*message.Message) *call {
	c := calls.Get().(*call)
	headers, size := 0, 0
	for _, m := range messages {
		headers += 1 + len(m.Metadata)
		size += len(m.UUID) + len(m.Payload) + metadataGuess
	}
	c.records = grow(c.records, len(messages))
	c.slots = make([]slot, len(messages))
	c.headers = grow(c.headers, headers)[:0]
	c.bytes = grow(c.bytes, size)[:0]
	// The client fails all records of a partition when the context of its first
	// ends. Those of other callers would be tried again, behind what they had sent
	// meanwhile. So it sees no context that ends.
	lasting := context.WithoutCancel(ctx)
	for i, m := range messages {
		c.slots[i].Context, c.slots[i].call = lasting, c
		r := &c.records[i]
		*r = kgo.Record{Topic: topic, Value: keep(c, m.Payload)}
		from := len(c.headers)
		c.headers = append(c.headers, kgo.RecordHeader{Key: headerUUID, Value: keep(c, m.UUID)})
		for name, value := range m.Metadata {
			kept := keep(c, value)
			c.headers = append(c.headers, kgo.RecordHeader{Key: name, Value: kept})
			if name == driver.MetadataKey && value != "" {
				r.Key = kept
			}
		}
		r.Headers = c.headers[from:len(c.headers):len(c.headers)]
	}
	return c
}

// grow returns s with n elements, whose contents don't matter.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// keep copies s. What was kept before stays where it is if there is no room.
func keep[T string | message.Payload](c *call, s T) []byte {
	from := len(c.bytes)
	c.bytes = append(c.bytes, s...)
	return c.bytes[from:len(c.bytes):len(c.bytes)]
}

// send gives the client what it has not accepted yet, in order.
func (c *call) send(ctx context.Context, client *kgo.Client) {
	now := time.Now()
	c.failed.Store(0)
	c.pending.Store(1) // for this function: what is being sent is not finished
	for i := range c.slots {
		s, r := &c.slots[i], &c.records[i]
		if s.state.Load() == accepted {
			continue
		}
		if c.failed.Load() > 0 {
			s.err = errBehindFailure // it must not come before what failed and will be sent again
			continue
		}
		if r.Context != nil { // it was sent before, and the client has written to it
			*r = kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
		}
		r.Context, r.Timestamp = s, now
		s.err = nil
		s.state.Store(sent)
		c.pending.Add(1)
		client.Produce(ctx, r, settled)
	}
	c.done()
}

var errBehindFailure = errors.New("an event before it in the batch failed")

// settled is called by the client for each record, and must not block.
func settled(r *kgo.Record, err error) {
	s := r.Context.(*slot)
	c := s.call
	if err == nil {
		s.state.Store(accepted)
	} else {
		s.err = err
		s.state.Store(unsent)
		c.failed.Add(1)
	}
	c.done()
}

// done ends what is pending by one. After the last, c may be used again.
func (c *call) done() {
	if c.pending.Add(-1) == 0 {
		c.finished <- struct{}{}
	}
}

// failures returns an element per message once the call is finished, or nil if
// all were accepted.
func (c *call) failures() []error {
	if c.failed.Load() == 0 {
		return nil
	}
	errs := make([]error, len(c.slots))
	for i := range c.slots {
		errs[i] = c.slots[i].err
	}
	return errs
}

// abandon stops waiting. What is not settled by now has failed with err. The call
// is not used again.
func (c *call) abandon(err error) []error {
	errs := make([]error, len(c.slots))
	for i := range c.slots {
		switch c.slots[i].state.Load() {
		case unsent:
			errs[i] = err
		case sent:
			errs[i] = fmt.Errorf("%w: %w", errUnknown, err)
		}
	}
	return errs
}

// errUnknown is about an event that was given to the client and not settled.
var errUnknown = errors.New("it may or may not have been published")

// release lets go of a call of which the client holds nothing any more.
func (c *call) release() {
	clear(c.records)
	c.slots = nil
	clear(c.headers)
	if cap(c.bytes) <= maxReused && cap(c.records) <= 4096 {
		calls.Put(c)
	}
}
