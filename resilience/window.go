package resilience

import (
	"sync/atomic"
	"time"
)

// outcome is how a call went, as bits.
type outcome uint32

const (
	failed outcome = 1 << iota
	slow
)

// window collects outcomes while a breaker is closed. Its methods take no lock;
// concurrent calls may be counted in any order. They get the time of the call's
// end, or 0 when nobody has asked the clock.
type window interface {
	// good counts a call that was neither failed nor slow.
	good(at int64)
	// bad counts another one and reports whether the breaker must open.
	bad(o outcome, at int64) bool
	// inherit takes over the counts of a window of the same shape.
	inherit(old window)
}

// limits say when a window is bad enough.
type limits struct {
	minCalls              int
	failureRate, slowRate float64
}

func (l limits) exceeded(total, failures, slows int) bool {
	if total < l.minCalls || total == 0 {
		return false
	}
	return l.failureRate > 0 && share(failures, total) >= l.failureRate ||
		l.slowRate > 0 && share(slows, total) >= l.slowRate
}

// share is exact where the rate is: 0.07*100 is more than 7, but 7/100 is 0.07.
func share(n, total int) float64 { return float64(n) / float64(total) }

// consecutive opens after so many bad calls in a row.
type consecutive struct {
	most int32
	row  atomic.Int32
}

func (w *consecutive) good(int64) {
	if w.row.Load() != 0 {
		w.row.Store(0)
	}
}

func (w *consecutive) bad(outcome, int64) bool { return w.row.Add(1) >= w.most }

// lastCalls looks at the outcomes of the last so many calls.
type lastCalls struct {
	limits
	ring            []atomic.Uint32
	failures, slows atomic.Int64

	_    apart
	next atomic.Uint64
	_    apart
}

// apart keeps what all calls write to out of the cache lines of what they read.
type apart [cacheLine - 8]byte

const cacheLine = 64

func newLastCalls(n int, l limits) *lastCalls {
	return &lastCalls{limits: l, ring: make([]atomic.Uint32, n)}
}

func (w *lastCalls) good(int64) { w.put(0) }

func (w *lastCalls) bad(o outcome, _ int64) bool {
	calls := w.put(o)
	total := min(calls, uint64(len(w.ring)))
	return w.exceeded(int(total), int(w.failures.Load()), int(w.slows.Load()))
}

// put returns how many calls there have been.
func (w *lastCalls) put(o outcome) uint64 {
	calls := w.next.Add(1)
	slot := &w.ring[(calls-1)%uint64(len(w.ring))]
	if outcome(slot.Load()) == o { // as mostly, and then no cache line changes hands
		return calls
	}
	if before := outcome(slot.Swap(uint32(o))); before != o {
		w.failures.Add(int64(o&failed) - int64(before&failed))
		w.slows.Add((int64(o&slow) - int64(before&slow)) / int64(slow))
	}
	return calls
}

// lastPeriod looks at the calls of the last so long, in steps of a tenth.
type lastPeriod struct {
	limits
	width int64 // of a bucket, in nanoseconds
	step  spell // while there are many calls
	_     apart

	buckets [buckets]struct {
		calls, slows counter
		_            [cacheLine - 16]byte
	}
}

const buckets = 10

func newLastPeriod(d time.Duration, l limits) *lastPeriod {
	return &lastPeriod{limits: l, width: max(1, int64(d)/buckets)}
}

// good needs the step only, which a busy window knows without the clock.
func (w *lastPeriod) good(at int64) {
	if step := w.step.get(); step != 0 {
		w.buckets[step%buckets].calls.add(step, 0)
		return
	}
	if at == 0 {
		at = now()
	}
	step := at / w.width
	if w.buckets[step%buckets].calls.add(step, 0) >= crowd {
		w.step.begin(step, (step+1)*w.width-at)
	}
}

func (w *lastPeriod) bad(o outcome, at int64) bool {
	if at == 0 {
		at = now()
	}
	step := at / w.width
	w.step.correct(step)
	b := &w.buckets[step%buckets]
	b.calls.add(step, uint64(o&failed))
	if o&slow != 0 {
		b.slows.add(step, 1)
	}
	var total, failures, slows int
	for s := max(0, step-buckets+1); s <= step; s++ {
		b := &w.buckets[s%buckets]
		n, f := b.calls.get(s)
		_, sl := b.slows.get(s)
		total, failures, slows = total+n, failures+f, slows+sl
	}
	return w.exceeded(total, failures, slows)
}

// counter counts calls and marked calls within one step of time, in one word:
// 22 bits of the step, 21 of calls, 21 of marked ones. A step with more calls
// than that is represented by its first two million.
type counter struct{ word atomic.Uint64 }

const (
	countBits = 21
	countMask = 1<<countBits - 1
	countMost = countMask - 1<<16 // leaves room to those who add one at the same time
	stepMask  = 1<<22 - 1
)

// add returns how many calls there have been in the step.
func (c *counter) add(step int64, marked uint64) uint64 {
	tag := uint64(step) & stepMask
	for {
		word := c.word.Load()
		switch {
		case word>>(2*countBits) != tag:
			if c.word.CompareAndSwap(word, tag<<(2*countBits)|1<<countBits|marked) {
				return 1
			}
		case word>>countBits&countMask >= countMost:
			return countMost
		default:
			return c.word.Add(1<<countBits+marked) >> countBits & countMask
		}
	}
}

// get returns the calls and marked calls of a step.
func (c *counter) get(step int64) (calls, marked int) {
	word := c.word.Load()
	if word>>(2*countBits) != uint64(step)&stepMask {
		return 0, 0
	}
	return int(word >> countBits & countMask), int(word & countMask)
}
