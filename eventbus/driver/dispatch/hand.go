package dispatch

import (
	"sync/atomic"
	"time"
)

// hand holds what a worker has taken. The worker goes from one entry to the next
// without the dispatcher's lock, which costs more than a quick handler. Whoever has
// the lock meanwhile may settle what is done and take back what was not started, so
// that a handler that turns out slow holds up no other record.
type hand[R any] struct {
	entries []*entry[R] // replaced by the worker, under the lock
	settled int         // of entries; under the lock
	whole   bool        // entries are handled all at once

	// span is how many entries are done, which is the index of the one being
	// handled, and behind it how many there are but for those that were taken back.
	span atomic.Uint64

	size int // how many the worker may take; its own
}

const (
	// mostTaken is how many records a worker takes at most.
	mostTaken = 16
	// quick is what a handler may take on average for its worker to take several. If
	// it takes longer the lock costs little beside it.
	quick = 10 * time.Microsecond
	// checkAfter bounds how long records wait in the hand of a worker whose handler
	// turned slow, while all other workers are busy.
	checkAfter = time.Millisecond
)

const oneDone = 1 << 32

func span(done, end int) uint64 { return uint64(done)<<32 | uint64(end) }

func (h *hand[R]) load() (done, end int) { return unpack(h.span.Load()) }

func unpack(s uint64) (done, end int) { return int(s >> 32), int(s & (oneDone - 1)) }

// fill begins a new round with the entries that were appended.
func (h *hand[R]) fill() {
	h.settled = 0
	h.span.Store(span(0, len(h.entries)))
}

// step notes that an entry is done and returns the next, or nil.
func (h *hand[R]) step() *entry[R] {
	done, end := unpack(h.span.Add(oneDone))
	if done >= end {
		return nil
	}
	return h.entries[done]
}

// finish notes that all entries are done.
func (h *hand[R]) finish() { h.span.Store(span(len(h.entries), len(h.entries))) }

// reap settles what is done.
func (d *Dispatcher[R]) reap(h *hand[R]) {
	done, _ := h.load()
	d.settle(h.entries[h.settled:done])
	h.settled = done
}

// recall takes back what was not started and settles what is done.
func (d *Dispatcher[R]) recall(h *hand[R]) {
	for !h.whole {
		done, end := h.load()
		if end <= done+1 {
			break
		}
		if h.span.CompareAndSwap(span(done, end), span(done, done+1)) {
			for i := end - 1; i > done; i-- {
				d.untake(h.entries[i])
			}
			break
		}
	}
	d.reap(h)
}

func (d *Dispatcher[R]) untake(e *entry[R]) {
	e.lane.running--
	e.state = ready
	d.ready.unpop(e)
}

// reapAll settles all that is done.
func (d *Dispatcher[R]) reapAll() {
	if d.loose {
		for _, h := range d.hands {
			d.reap(h)
		}
		d.wake()
	}
}

// recallAll leaves in each hand only the record being handled.
func (d *Dispatcher[R]) recallAll() {
	for _, h := range d.hands {
		d.recall(h)
	}
	d.loose = false
}

// anyReady reports whether a record is ready, be it in the hand of a worker that
// has not come to it.
func (d *Dispatcher[R]) anyReady() bool {
	if !d.ready.empty() || !d.loose {
		return !d.ready.empty()
	}
	for _, h := range d.hands {
		if d.recall(h); !d.ready.empty() {
			return true
		}
	}
	d.loose = false
	return false
}

// loosen notes that a worker has taken several records.
func (d *Dispatcher[R]) loosen() {
	d.loose = true
	if !d.checked {
		d.checked = true
		time.AfterFunc(checkAfter, d.check)
	}
}

// check recalls what is in the hands of workers, lest it waits there for long:
// other workers look only when nothing else is ready.
func (d *Dispatcher[R]) check() {
	d.mu.Lock()
	d.checked = false
	d.recallAll()
	d.wake()
	d.unlockAndTell()
}
