package kafkabus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

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

	mu        sync.Mutex
	outcomes  []outcome
	pending   int
	abandoned bool

	failed atomic.Int32 // records of this attempt
}

// slot is the context of a record and leads to its place in the call.
type slot struct {
	context.Context
	call  *call
	index int
}

// outcome is what became of a record.
type outcome struct {
	state state
	err   error
}

type state uint8

const (
	unsent state = iota
	sent
	accepted
)

var calls = sync.Pool{New: func() any { return &call{finished: make(chan struct{}, 1)} }}

// maxReused is how much memory of a call is worth keeping, in bytes.
const maxReused = 1 << 20

// newCall copies messages into the records of a call.
func newCall(ctx context.Context, topic string, messages []*message.Message) *call {
	c := calls.Get().(*call)
	headers, size := 0, 0
	for _, m := range messages {
		headers += 1 + len(m.Metadata)
		size += len(m.UUID) + len(m.Payload) + len(driver.Key(m))
		for _, value := range m.Metadata {
			size += len(value)
		}
	}
	c.records = grow(c.records, len(messages))
	c.outcomes = grow(c.outcomes, len(messages))
	c.slots = make([]slot, len(messages))
	c.headers = grow(c.headers, headers)[:0]
	c.bytes = grow(c.bytes, size)[:0]
	// The client fails all records of a partition when the context of its first
	// ends. Those of other callers would be tried again, behind what they had sent
	// meanwhile. So it sees no context that ends.
	lasting := context.WithoutCancel(ctx)
	for i, m := range messages {
		from := len(c.headers)
		c.headers = append(c.headers, kgo.RecordHeader{Key: headerUUID, Value: c.keepString(m.UUID)})
		for name, value := range m.Metadata {
			c.headers = append(c.headers, kgo.RecordHeader{Key: name, Value: c.keepString(value)})
		}
		r := kgo.Record{Topic: topic, Headers: c.headers[from:len(c.headers):len(c.headers)], Value: c.keep(m.Payload)}
		if key := driver.Key(m); key != "" {
			r.Key = c.keepString(key)
		}
		c.records[i] = r
		c.outcomes[i] = outcome{}
		c.slots[i] = slot{lasting, c, i}
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

func (c *call) keep(b []byte) []byte {
	from := len(c.bytes)
	c.bytes = append(c.bytes, b...)
	return c.bytes[from:len(c.bytes):len(c.bytes)]
}

func (c *call) keepString(s string) []byte {
	from := len(c.bytes)
	c.bytes = append(c.bytes, s...)
	return c.bytes[from:len(c.bytes):len(c.bytes)]
}

// send gives the client what it has not accepted yet, in order.
func (c *call) send(ctx context.Context, client *kgo.Client) {
	c.mu.Lock()
	c.failed.Store(0)
	for i := range c.outcomes {
		if c.outcomes[i].state == accepted {
			continue
		}
		c.outcomes[i] = outcome{state: sent}
		c.pending++
		r := &c.records[i] // to which the client has written, if it was sent before
		*r = kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
	}
	c.pending++ // for this function: what is being sent is not finished
	c.mu.Unlock()
	for i := range c.slots {
		r := &c.records[i]
		if r.Context != nil {
			continue // accepted
		}
		if c.failed.Load() > 0 {
			c.skip(i) // it must not come before what failed and will be sent again
			continue
		}
		r.Context = &c.slots[i]
		client.Produce(ctx, r, settled)
	}
	c.mu.Lock()
	c.done()
}

var errBehindFailure = errors.New("an event before it in the batch failed")

func (c *call) skip(i int) {
	c.mu.Lock()
	c.outcomes[i] = outcome{unsent, errBehindFailure}
	c.pending--
	c.mu.Unlock()
}

// settled is called by the client for each record, and must not block.
func settled(r *kgo.Record, err error) {
	s := r.Context.(*slot)
	c := s.call
	c.mu.Lock()
	if err == nil {
		c.outcomes[s.index].state = accepted
	} else {
		c.outcomes[s.index] = outcome{unsent, err}
		c.failed.Add(1)
	}
	c.done()
}

// done ends what is pending by one and unlocks.
func (c *call) done() {
	c.pending--
	last := c.pending == 0 && !c.abandoned
	c.mu.Unlock()
	if last {
		c.finished <- struct{}{}
	}
}

// failures returns an element per message once the call is finished, or nil if
// all were accepted.
func (c *call) failures() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed.Load() == 0 {
		return nil
	}
	errs := make([]error, len(c.outcomes))
	for i := range c.outcomes {
		errs[i] = c.outcomes[i].err
	}
	return errs
}

// abandon stops waiting. What is not settled by now has failed with err.
func (c *call) abandon(err error) []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandoned = true
	errs := make([]error, len(c.outcomes))
	for i := range c.outcomes {
		switch c.outcomes[i].state {
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
