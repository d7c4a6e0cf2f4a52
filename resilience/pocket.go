package resilience

import (
	"runtime"
	"sync/atomic"
)

// pocket holds places of a RateLimiter that were charged in advance, so that
// whoever takes one need not ask the clock. What is in it, and what may come at
// once without it, are the burst together: it never lets more through than that.
type pocket struct {
	size int64 // 0: there is none
	_    apart
	left atomic.Int64
	_    apart
}

// What else left may be.
const (
	filling = -1
	torn    = -2 // the pocket's pace has a successor
)

// pocketOf is the size for a burst: a thirty-second part, of which one is used at
// once, but no more than makes the clock's share of a call small.
func pocketOf(burst int) int64 { return int64(max(1, min(burst/32, 64)) - 1) }

// take takes a place.
func (p *pocket) take() bool {
	for {
		n := p.left.Load()
		if n <= 0 {
			return false
		}
		if p.left.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// open reports whether the pocket is empty, and the caller's to fill.
func (p *pocket) open() bool { return p.size > 0 && p.left.CompareAndSwap(0, filling) }

// fill ends what open began.
func (p *pocket) fill(places int64) { p.left.Store(places) }

// empty takes all places, for good.
func (p *pocket) empty() int64 {
	for {
		if n := p.left.Load(); n >= 0 && p.left.CompareAndSwap(n, torn) {
			return n
		}
		runtime.Gosched() // somebody fills it
	}
}
