package eventbustest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/membus"
)

// inactivity is how long the bus may be silent before a wait gives up.
const inactivity = 5 * time.Second

// Harness is a bus in memory that remembers what happened on it. Its methods
// are safe for concurrent use; those that fail the test must be called from the
// test's goroutine.
type Harness struct {
	t      testing.TB
	bus    *eventbus.Bus
	memory *membus.Broker

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced at every step
	published []*message.Message
	topics    []string            // of published
	consumed  map[consumption]int // acknowledged deliveries
	pending   map[consumption]int // published, not yet acknowledged by a group
	groups    map[string]map[string]bool
}

// consumption is one event's way through one group.
type consumption struct{ topic, group, id string }

// New returns a harness whose bus is closed when the test ends. Faults, at most
// one, inject failures.
func New(t testing.TB, faults ...Faults) *Harness {
	t.Helper()
	if len(faults) > 1 {
		t.Fatal("eventbustest: New takes one Faults at most")
	}
	broker, err := membus.New(membus.Config{})
	if err != nil {
		t.Fatal(err)
	}
	h := &Harness{
		t: t, memory: broker, changed: make(chan struct{}),
		consumed: map[consumption]int{}, pending: map[consumption]int{}, groups: map[string]map[string]bool{},
	}
	var b driver.Broker = &recorder{Broker: broker, h: h}
	if len(faults) > 0 {
		b = faults[0].inject(t, b)
	}
	if h.bus, err = eventbus.New(b, eventbus.Source(t.Name())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.bus.Close() })
	return h
}

// Bus returns the bus to give to the program under test.
func (h *Harness) Bus() *eventbus.Bus { return h.bus }

// Start runs a service until the test ends and returns when it is ready. The
// test fails if the service ends with an error.
func (h *Harness) Start(svc *eventbus.Service) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	select {
	case <-svc.Ready():
	case err := <-ended:
		cancel()
		h.t.Fatalf("eventbustest: start service %q: %v", svc.Name(), err)
	}
	h.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("eventbustest: service %q: %v", svc.Name(), err)
		}
	})
}

// Published returns the events published to topic so far, in order.
func Published[T any](h *Harness, topic eventbus.Topic[T]) []eventbus.Event[T] {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	var events []eventbus.Event[T]
	for i, m := range h.published {
		if h.topics[i] != topic.Name() {
			continue
		}
		e, err := topic.Decode(m.Copy())
		if err != nil {
			h.t.Fatalf("eventbustest: %v", err)
		}
		events = append(events, e)
	}
	return events
}

// AwaitPublished waits for an event of topic for which match returns true and
// returns it; a nil match takes the first. The test fails when the bus has been
// silent for five seconds and nothing is waiting for its due time.
func AwaitPublished[T any](h *Harness, topic eventbus.Topic[T], match func(eventbus.Event[T]) bool) eventbus.Event[T] {
	h.t.Helper()
	var found eventbus.Event[T]
	h.await(fmt.Sprintf("a matching event published to %q", topic.Name()), func() bool {
		for _, e := range Published(h, topic) {
			if match == nil || match(e) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// AwaitConsumed waits until group has acknowledged the event of topic with the
// given id. A dead-lettered event counts: its group is done with it.
func (h *Harness) AwaitConsumed(topic, group, id string) {
	h.t.Helper()
	h.await(fmt.Sprintf("group %q to consume event %s of %q", group, id, topic), func() bool {
		return h.Consumed(topic, group, id) > 0
	})
}

// Consumed returns how often group has acknowledged the event.
func (h *Harness) Consumed(topic, group, id string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.consumed[consumption{topic, group, id}]
}

// AwaitIdle waits until every group has acknowledged everything published to
// its topics, delayed events included, so nothing more will happen by itself.
func (h *Harness) AwaitIdle() {
	h.t.Helper()
	h.await("every event to be consumed", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.pending) == 0
	})
}

// DeadLetters returns the dead letters of all services so far.
func (h *Harness) DeadLetters() []eventbus.DeadLetter {
	h.mu.Lock()
	defer h.mu.Unlock()
	var dead []eventbus.DeadLetter
	for _, m := range h.published {
		if d, err := eventbus.ReadDeadLetter(m); err == nil {
			dead = append(dead, d)
		}
	}
	return dead
}

// await re-evaluates condition after every step until it holds or nothing
// moves. While something waits for its due time it is patient, and ever more so:
// that may be far away in virtual time.
func (h *Harness) await(what string, condition func() bool) {
	h.t.Helper()
	patience, delayed := inactivity, 0
	for {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		if condition() {
			return
		}
		silence := time.NewTimer(patience)
		select {
		case <-changed:
			silence.Stop()
			patience = inactivity
		case <-silence.C:
			before := delayed
			if delayed = h.memory.Delayed(); delayed == 0 && before == 0 {
				h.t.Fatalf("eventbustest: waited for %s, but the bus was silent for %v\n%s", what, inactivity, h.summary())
			}
			patience *= 2
		}
	}
}

func (h *Harness) summary() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var b strings.Builder
	b.WriteString("published:")
	for i, m := range h.published {
		fmt.Fprintf(&b, "\n  %s %s", h.topics[i], m.UUID)
	}
	b.WriteString("\nnot consumed:")
	for c, n := range h.pending {
		fmt.Fprintf(&b, "\n  %s %s by group %s (%d)", c.topic, c.id, c.group, n)
	}
	return b.String()
}

// step records something and wakes those who wait. h.mu is held.
func (h *Harness) step() {
	close(h.changed)
	h.changed = make(chan struct{})
}
