package outboxcrash

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/faultdb"
)

// broker outlives the processes that publish to it. It remembers first arrivals,
// and refuses some events for good.
type broker struct {
	mu      sync.Mutex
	firsts  map[string][]string // ids by key
	refused map[string]bool
}

func newBroker(refused ...string) *broker {
	b := &broker{firsts: map[string][]string{}, refused: map[string]bool{}}
	for _, id := range refused {
		b.refused[id] = true
	}
	return b
}

func (b *broker) accept(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.refused, id)
}

func (b *broker) has(ids ...string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		if !b.arrived(id) {
			return false
		}
	}
	return true
}

func (b *broker) arrived(id string) bool {
	for _, ids := range b.firsts {
		if slices.Contains(ids, id) {
			return true
		}
	}
	return false
}

func (b *broker) all() map[string][]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.firsts)
}

func (b *broker) publish(messages []*message.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	errs, refused := make([]error, len(messages)), false
	for i, m := range messages {
		if b.refused[m.UUID] {
			errs[i], refused = driver.Permanent(errors.New("refused")), true
		} else if !b.arrived(m.UUID) {
			b.firsts[driver.Key(m)] = append(b.firsts[driver.Key(m)], m.UUID)
		}
	}
	if refused {
		return &driver.BatchError{Errs: errs}
	}
	return nil
}

// publisher is the broker as a process sees it.
type publisher struct {
	*broker
	p *faultdb.Process
}

// Publish is a point.
func (p publisher) Publish(_ string, messages ...*message.Message) error {
	return p.p.Do("publish", func() error { return p.publish(messages) })
}

func (publisher) Close() error { return nil }
