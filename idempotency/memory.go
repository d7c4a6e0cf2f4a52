package idempotency

import (
	"bytes"
	"container/heap"
	"context"
	"fmt"
	"sync"
	"time"
)

// MemoryStore is a Store within the process, for tests and for services of one
// process that may forget everything when it ends. It is safe for concurrent
// use. Records are deleted when their time is over and room is needed, or by
// Prune; never before.
type MemoryStore struct {
	max int

	mu      sync.Mutex
	entries map[Key]*entry
	expiry  expiryHeap
	last    int64 // token
}

// MemoryConfig configures a MemoryStore.
type MemoryConfig struct {
	// MaxEntries bounds the number of keys that are remembered. A claim of one more
	// is an error with ErrFull in its chain that may be retried; nothing that is
	// still to be kept makes room for it. Defaults to 100,000.
	MaxEntries int
}

// NewMemoryStore returns an empty store. There is nothing to close.
func NewMemoryStore(c MemoryConfig) *MemoryStore {
	if c.MaxEntries <= 0 {
		c.MaxEntries = 100_000
	}
	return &MemoryStore{max: c.MaxEntries, entries: map[Key]*entry{}}
}

var _ Store = (*MemoryStore)(nil)

// Claim is the method of Store.
func (s *MemoryStore) Claim(ctx context.Context, q ClaimRequest) (Record, error) {
	if err := checkClaim(ctx, q); err != nil {
		return Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now().UnixMicro()
	e := s.entries[q.Key]
	var r *record
	if e != nil {
		r = &e.record
	}
	state := r.found(now, q)
	if state != StateClaimed {
		return r.answer(state, now), nil
	}
	if e == nil {
		if len(s.entries) >= s.max && s.drop(now) == 0 {
			return Record{}, fmt.Errorf("idempotency: claim %s: %w: it has %d keys, and the first is to be kept for %v more; raise MaxEntries or keep results for less time",
				q.Key, ErrFull, s.max, time.Duration(s.expiry[0].expires-now)*time.Microsecond)
		}
		e = &entry{key: q.Key}
		s.entries[q.Key] = e
		heap.Push(&s.expiry, e)
	}
	e.record = r.claimed(now, q)
	e.token = max(e.token, s.last+1)
	s.last = e.token
	heap.Fix(&s.expiry, e.index)
	return Record{State: StateClaimed, Claim: Claim{q.Key, e.token, e.attempt}}, nil
}

// Renew is the method of Store.
func (s *MemoryStore) Renew(ctx context.Context, c Claim, lease time.Duration) error {
	return s.change(ctx, "renew", c, phaseClaimed, func(r *record, now int64) {
		r.until = now + lease.Microseconds()
		r.expires = max(r.expires, r.until)
	})
}

// Complete is the method of Store.
func (s *MemoryStore) Complete(ctx context.Context, c Claim, result []byte, keep time.Duration) error {
	return s.change(ctx, "complete", c, phaseDone, func(r *record, now int64) {
		r.phase, r.result = phaseDone, bytes.Clone(result)
		r.until, r.expires = now, now+keep.Microseconds()
	})
}

// Release is the method of Store.
func (s *MemoryStore) Release(ctx context.Context, c Claim) error {
	return s.change(ctx, "release", c, phaseFree, func(r *record, now int64) {
		r.phase, r.until = phaseFree, now
	})
}

// change applies f to the record that c holds. It is nil if that is in the
// phase that f leads to already.
func (s *MemoryStore) change(ctx context.Context, operation string, c Claim, to phase, f func(r *record, now int64)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("idempotency: %s %s: %w", operation, c.Key, context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[c.Key]
	switch {
	case e == nil || e.token != c.Token || e.phase != phaseClaimed && e.phase != to:
		return fmt.Errorf("idempotency: %s %s: %w", operation, c.Key, ErrLost)
	case e.phase == phaseClaimed:
		f(&e.record, time.Now().UnixMicro())
		heap.Fix(&s.expiry, e.index)
	}
	return nil
}

// Prune deletes the records whose time is over and returns how many. Calling it
// is not necessary: claims do the same when room is needed.
func (s *MemoryStore) Prune(context.Context) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drop(time.Now().UnixMicro()), nil
}

// Len returns how many keys are remembered.
func (s *MemoryStore) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries)
}

func (s *MemoryStore) drop(now int64) (n int64) {
	for ; len(s.expiry) > 0 && s.expiry[0].expires <= now; n++ {
		delete(s.entries, heap.Pop(&s.expiry).(*entry).key)
	}
	return n
}
