package saga

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// MemoryStore keeps instances in memory, for tests and examples. What it commits
// it publishes at once. It is safe for concurrent use.
type MemoryStore struct {
	to message.Publisher

	mu        sync.Mutex
	instances map[[2]string]Instance
	history   map[[2]string][]Entry
	marks     map[[3]string]bool
	pins      map[string]string
}

// NewMemoryStore returns an empty store that publishes to a bus, which needs due
// times for sagas with timeouts.
func NewMemoryStore(to message.Publisher) *MemoryStore {
	return &MemoryStore{
		to: to, instances: map[[2]string]Instance{}, history: map[[2]string][]Entry{}, marks: map[[3]string]bool{}, pins: map[string]string{},
	}
}

// Load is Store.Load.
func (s *MemoryStore) Load(_ context.Context, saga, id string) (Instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.instances[[2]string{saga, id}]
	if !ok {
		return Instance{}, ErrNoInstance
	}
	return i, nil
}

// Commit is Store.Commit.
func (s *MemoryStore) Commit(_ context.Context, c Commit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	mark := [3]string{c.Consumer, c.Source, c.EventID}
	if c.EventID != "" && s.marks[mark] {
		return ErrDuplicate
	}
	k := [2]string{c.Instance.Saga, c.Instance.ID}
	if s.instances[k].Revision != c.Instance.Revision-1 {
		return ErrConflict
	}
	for _, m := range c.Messages {
		if err := s.to.Publish(m.Topic, m.Message); err != nil {
			return fmt.Errorf("publish to topic %q: %w", m.Topic, err)
		}
	}
	if c.EventID != "" {
		s.marks[mark] = true
	}
	s.instances[k] = c.Instance
	s.history[k] = append(s.history[k], c.Entry)
	return nil
}

// History is Store.History.
func (s *MemoryStore) History(_ context.Context, saga, id string) ([]Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.history[[2]string{saga, id}]), nil
}

// List is Store.List.
func (s *MemoryStore) List(_ context.Context, q Query) ([]Instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Instance
	for _, i := range s.instances {
		if q.selects(i) {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b Instance) int {
		if c := b.Updated.Compare(a.Updated); c != 0 {
			return c
		}
		return strings.Compare(b.ID, a.ID)
	})
	return all[:min(len(all), q.limit())], nil
}

func (q Query) selects(i Instance) bool {
	return i.Saga == q.Saga && (len(q.Status) == 0 || slices.Contains(q.Status, i.Status)) && strings.HasPrefix(i.ID, q.ID) &&
		(q.RecoverableAt.IsZero() || i.recoverable(q.RecoverableAt)) && (q.Before.IsZero() || i.Updated.Before(q.Before) || i.Updated.Equal(q.Before) && i.ID < q.BeforeID)
}

func (q Query) limit() int {
	if q.Limit <= 0 {
		return 100
	}
	return min(q.Limit, 1000)
}

// Count is Store.Count.
func (s *MemoryStore) Count(_ context.Context, saga string) (map[Status]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[Status]int64{}
	for k, i := range s.instances {
		if k[0] == saga {
			n[i.Status]++
		}
	}
	return n, nil
}

// Pin is Store.Pin.
func (s *MemoryStore) Pin(_ context.Context, saga string, version int, fingerprint string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := fmt.Sprint(saga, "/", version)
	if _, ok := s.pins[k]; !ok {
		s.pins[k] = fingerprint
	}
	return s.pins[k], nil
}
