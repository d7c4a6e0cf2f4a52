package membus

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/internal/ring"
)

// record is an event at rest. It is immutable and shared by all groups.
type record struct {
	id       string
	key      string
	metadata message.Metadata
	payload  []byte
	position int64
}

// taken makes a record of a message that was given away.
func taken(m *message.Message) *record {
	return &record{id: m.UUID, key: driver.Key(m), metadata: m.Metadata, payload: m.Payload}
}

// copied makes a record of a message that its publisher keeps.
func copied(m *message.Message) *record {
	r := taken(m)
	r.payload = bytes.Clone(m.Payload)
	if len(m.Metadata) > 0 {
		r.metadata = maps.Clone(m.Metadata)
	}
	return r
}

// NewMessage implements driver.Delivery.Original.
func (r *record) NewMessage() *message.Message {
	return &message.Message{UUID: r.id, Metadata: r.copyMetadata(), Payload: r.payload}
}

func (r *record) copyMetadata() message.Metadata {
	if r.metadata == nil {
		return message.Metadata{}
	}
	return maps.Clone(r.metadata)
}

type topic struct {
	broker  *Broker
	name    string
	blocked atomic.Int32 // publishers waiting for room

	mu      sync.Mutex
	room    sync.Cond          // a group made room, a context ended, or the topic closed
	next    int64              // position of the next event
	kept    ring.Ring[*record] // the latest events, for groups to come
	keptSum int                // and their payloads, in bytes
	names   map[string]*group
	groups  []*group // those of names, for the hot path
	delayed map[*time.Timer]struct{}
	warned  bool
	closed  bool
}

func newTopic(b *Broker, name string) *topic {
	t := &topic{broker: b, name: name, next: 1, names: map[string]*group{}, delayed: map[*time.Timer]struct{}{}}
	t.room.L = &t.mu
	return t
}

// group returns the named group, which begins with the kept events if it is new
// and start says so.
func (t *topic) group(name string, start driver.Start) *group {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.names[name]
	if g != nil {
		return g
	}
	g = newGroup(t)
	t.names[name], t.groups = g, append(t.groups, g)
	if start == driver.StartOldest {
		for i := range t.kept.Len() {
			g.add(t.kept.At(i))
		}
	}
	return g
}

func (t *topic) publish(messages []*message.Message, toRecord func(*message.Message) *record) error {
	later, err := t.check(messages)
	if err != nil {
		return err
	}
	records := recordsOf(messages, toRecord) // not under the lock: this may copy
	t.mu.Lock()
	defer t.mu.Unlock()
	if limit := t.broker.cfg.Buffer; later > 0 && len(t.delayed)+later > limit {
		// Waiting for them to become due would block for as long.
		return fmt.Errorf("topic %q: %d events are waiting for their due time, the buffer holds %d", t.name, len(t.delayed), limit)
	}
	ctx := messages[0].Context()
	if t.closed || ctx.Err() != nil || t.full() {
		if err := t.waitForRoom(ctx); err != nil {
			return fmt.Errorf("topic %q: event %s was not published: %w", t.name, messages[0].UUID, err)
		}
	}
	for i, m := range messages {
		r := records[i]
		if wait := untilDue(m, later); wait > 0 {
			t.later(wait, func() { t.append(r) })
		} else {
			t.append(r)
		}
	}
	return nil
}

func recordsOf(messages []*message.Message, toRecord func(*message.Message) *record) []*record {
	records := make([]*record, 0, len(messages))
	for _, m := range messages {
		records = append(records, toRecord(m))
	}
	return records
}

// untilDue returns how long m, which was checked, has to wait; later is how many
// of its batch have to.
func untilDue(m *message.Message, later int) time.Duration {
	if later == 0 {
		return 0
	}
	due, _ := driver.Due(m)
	return time.Until(due)
}

// check refuses a batch of which any message can't be taken, before any is, and
// counts those that are due later.
func (t *topic) check(messages []*message.Message) (later int, err error) {
	err = driver.CheckBatch(t.name, messages, func(m *message.Message) error {
		due, err := driver.Due(m)
		if !due.IsZero() && due.After(time.Now()) {
			later++
		}
		if size, limit := len(m.Payload), t.broker.cfg.MaxPayload; size > limit {
			err = driver.TooLarge(t.name, m.UUID, size, limit)
		}
		return err
	})
	return later, err
}

func (t *topic) full() bool {
	for _, g := range t.groups {
		if g.outstanding.Load() >= int64(t.broker.cfg.Buffer) || g.bytes.Load() >= int64(t.broker.cfg.BufferBytes) {
			return true
		}
	}
	return false
}

func (t *topic) waitForRoom(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.room.Broadcast()
	})
	defer stop()
	t.blocked.Add(1) // before looking: whoever makes room looks the other way round
	defer t.blocked.Add(-1)
	for {
		switch {
		case t.closed:
			return driver.ErrClosed
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !t.full():
			return nil
		}
		t.room.Wait()
	}
}

// madeRoom is called after a group's outstanding events went down.
func (t *topic) madeRoom() {
	if t.blocked.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.room.Broadcast()
}

func (t *topic) append(r *record) {
	r.position = t.next
	t.next++
	t.keep(r)
	for _, g := range t.groups {
		g.add(r)
	}
}

// keep remembers r for groups to come, within the bounds of the buffer.
func (t *topic) keep(r *record) {
	t.kept.Push(r)
	t.keptSum += len(r.payload)
	for t.kept.Len() > t.broker.cfg.Buffer || t.keptSum > t.broker.cfg.BufferBytes && t.kept.Len() > 1 {
		t.keptSum -= len(t.kept.Pop().payload)
		if len(t.groups) == 0 && !t.warned {
			t.warned = true
			driver.Options{Logger: t.broker.cfg.Logger}.Log().Warn("membus: a topic without any group is over its buffer, the oldest events are let go", "topic", t.name, "buffer", t.broker.cfg.Buffer)
		}
	}
}

// later calls f with t locked, unless t is closed before.
func (t *topic) later(wait time.Duration, f func()) {
	if t.closed {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.delayed, timer)
		if !t.closed {
			f()
		}
	})
	t.delayed[timer] = struct{}{}
}

func (t *topic) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for timer := range t.delayed {
		timer.Stop()
	}
	for _, g := range t.groups {
		g.lane.Abandon() // timers included
	}
	t.room.Broadcast()
}

func (t *topic) countDelayed() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(t.delayed)
	for _, g := range t.groups {
		n += g.dispatcher.Delayed()
	}
	return n
}
