package resilience

import (
	"sync/atomic"
	"time"
)

// spell remembers what the clock has said, for as long as that is sure to stay
// true: reading the clock takes longer than all else that a policy does. A timer
// ends it, well before the end of that time, so that in the last moments
// everybody looks at the clock. A timer that is late by less does not matter.
type spell struct{ value atomic.Int64 }

const (
	crowd      = 64                      // calls make it worth a timer
	shortSpell = int64(time.Millisecond) // is not worth a timer
	longSpell  = int64(time.Second)      // is as long as a timer may keep its policy in memory
)

// get returns what is remembered, or 0.
func (s *spell) get() int64 { return s.value.Load() }

// begin remembers what will be true for so long. Each spell has a timer of its
// own that nobody else touches, since it may belong to a bubble of testing/synctest.
func (s *spell) begin(value, left int64) {
	long := min(left-max(left/16, shortSpell), longSpell)
	if long < shortSpell || !s.value.CompareAndSwap(0, value) {
		return
	}
	time.AfterFunc(time.Duration(long), func() { s.value.CompareAndSwap(value, 0) })
}

// correct forgets what is not true: the timer is late, or its bubble has ended.
func (s *spell) correct(value int64) {
	if v := s.value.Load(); v != 0 && v != value {
		s.value.CompareAndSwap(v, 0)
	}
}
