package marks

import "sync"

// Recent remembers the last so many digests that were added. The zero value
// remembers none. It is safe for concurrent use and never grows.
type Recent struct {
	mu   sync.Mutex
	set  map[Digest]struct{}
	ring []Digest // oldest at next, once it is full
	next int
}

// NewRecent remembers up to size digests.
func NewRecent(size int) *Recent {
	if size <= 0 {
		return &Recent{}
	}
	return &Recent{set: make(map[Digest]struct{}, size), ring: make([]Digest, 0, size)}
}

// Has reports whether d is remembered. It does not allocate.
func (r *Recent) Has(d Digest) bool {
	r.mu.Lock()
	_, ok := r.set[d]
	r.mu.Unlock()
	return ok
}

// Add remembers d, and forgets the oldest if there is no room.
func (r *Recent) Add(d Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.set[d]; known || cap(r.ring) == 0 {
		return
	}
	if len(r.ring) < cap(r.ring) {
		r.ring = append(r.ring, d)
	} else {
		delete(r.set, r.ring[r.next])
		r.ring[r.next] = d
		r.next = (r.next + 1) % len(r.ring)
	}
	r.set[d] = struct{}{}
}
