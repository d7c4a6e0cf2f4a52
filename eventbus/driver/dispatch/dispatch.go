package dispatch

import (
	"errors"
	"sync"
	"time"
)

// ErrRevoked is returned by Lane.Add after Lane.Revoke.
var ErrRevoked = errors.New("dispatch: lane is revoked")

// Config of a Dispatcher. The zero value is usable.
type Config struct {
	// Limit is how many records the dispatcher holds that are not done, over all
	// lanes; Lane.Add blocks at the limit. Defaults to no limit, for callers that
	// bound their input themselves.
	Limit int

	// Progress, if set, is called after a watermark moved, without locks held. It
	// must be quick.
	Progress func()
}

// Item is a record in the hands of a worker, valid until the handler returns.
type Item[R any] struct {
	Key      string
	Position int64
	// Attempt is what Add was given, plus one for each Retry.
	Attempt int
	Record  R

	retry   bool
	letPass bool
	after   time.Duration
}

// Retry asks for the item again after a delay, counted from the return of the
// handler. Until then its key waits and its lane's watermark stays behind it.
func (it *Item[R]) Retry(after time.Duration) { it.retry, it.after = true, after }

// Defer is Retry, but later items of the key need not wait: after the delay the
// item is the last of its key. With a delay of zero or less it is Retry.
func (it *Item[R]) Defer(after time.Duration) {
	it.Retry(after)
	it.letPass = after > 0
}

// Dispatcher hands records to workers. It is safe for concurrent use.
type Dispatcher[R any] struct {
	cfg Config

	mu      sync.Mutex
	work    sync.Cond // a record became ready, or workers must stop
	room    sync.Cond // a record left, or adders must stop
	idle    sync.Cond // a running record of some lane was settled
	waiting int       // workers blocked on work
	waking  bool      // one of them was signalled and has not looked yet
	ready   queue[R]
	hands   []*hand[R] // of all workers
	loose   bool       // some hand may have more than the record being handled
	checked bool       // check is going to be called
	moved   bool       // a watermark did, and Progress was not called yet
	held    int        // records that are not done
	delayed int        // of them, those that wait for the delay of a retry
	free    []*entry[R]
}

// New returns an empty Dispatcher.
func New[R any](cfg Config) *Dispatcher[R] {
	d := &Dispatcher[R]{cfg: cfg}
	d.work.L, d.room.L, d.idle.L = &d.mu, &d.mu, &d.mu
	return d
}

// Len returns how many records are held that are not done.
func (d *Dispatcher[R]) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reapAll()
	return d.held
}

// Delayed returns how many of the records held wait for the delay of a Retry or
// a Defer.
func (d *Dispatcher[R]) Delayed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reapAll()
	return d.delayed
}

// Idle returns how many workers have nothing to do. While a record is ready that is
// none: some are just waking up to take it.
func (d *Dispatcher[R]) Idle() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.anyReady() {
		d.wake()
		return 0
	}
	return d.waiting
}

// settle ends a run of each entry.
func (d *Dispatcher[R]) settle(entries []*entry[R]) {
	for _, e := range entries {
		l := e.lane
		if l.running--; l.running == 0 && l.revoked {
			d.idle.Broadcast()
		}
		switch {
		case !e.retry:
			d.done(e)
		case l.revoked:
			d.drop(e)
		default:
			d.again(e)
		}
	}
}

func (d *Dispatcher[R]) done(e *entry[R]) {
	e.state = done
	e.lane.held--
	d.release(1)
	d.pass(e)
	e.Item = Item[R]{Position: e.Position} // it may wait long for the watermark
	if e.lane.advance() {
		d.moved = true
	}
}

// pass lets the next record of e's key run.
func (d *Dispatcher[R]) pass(e *entry[R]) {
	if e.Key == "" {
		return
	}
	if next := e.lane.dequeue(e); next != nil && !e.lane.revoked {
		d.push(next)
	}
}

func (d *Dispatcher[R]) drop(e *entry[R]) {
	e.state = dropped
	e.lane.held--
	d.release(1)
}

func (d *Dispatcher[R]) again(e *entry[R]) {
	after, letPass := e.after, e.letPass
	e.retry, e.letPass, e.after = false, false, 0
	e.Attempt++
	if after <= 0 {
		d.push(e)
		return
	}
	e.state = delayed
	d.delayed++
	if letPass {
		d.pass(e)
	}
	e.timer = time.AfterFunc(after, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if e.state == delayed {
			d.delayed--
			e.timer = nil
			if letPass && e.Key != "" && !e.lane.enqueue(e) {
				e.state = waiting
				return
			}
			d.push(e)
			d.wake()
		}
	})
}

func (d *Dispatcher[R]) push(e *entry[R]) {
	e.state = ready
	d.ready.push(e)
}

// release makes room for n records.
func (d *Dispatcher[R]) release(n int) {
	full := d.full()
	d.held -= n
	if full && n > 0 {
		d.room.Broadcast()
	}
}

func (d *Dispatcher[R]) full() bool { return d.cfg.Limit > 0 && d.held >= d.cfg.Limit }

func (d *Dispatcher[R]) alloc() *entry[R] {
	if n := len(d.free); n > 0 {
		e := d.free[n-1]
		d.free = d.free[:n-1]
		return e
	}
	return new(entry[R])
}

// maxFree is how many entries are kept for reuse: as many as a driver adds and has
// done between two batches, roughly.
const maxFree = 4096

func (d *Dispatcher[R]) recycle(e *entry[R]) {
	*e = entry[R]{}
	if len(d.free) < maxFree {
		d.free = append(d.free, e)
	}
}
