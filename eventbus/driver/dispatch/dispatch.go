package dispatch

import (
	"context"
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

	// Progress, if set, is called after a watermark moved, without locks held
	// and by the worker that moved it. It must be quick.
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
	held    int // records that are not done
	delayed int // of them, those that wait for the delay of a retry
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
	return d.held
}

// Delayed returns how many of the records held wait for the delay of a Retry or
// a Defer.
func (d *Dispatcher[R]) Delayed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.delayed
}

// Idle returns how many workers have nothing to do. While a record is ready that is
// none: some are just waking up to take it.
func (d *Dispatcher[R]) Idle() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ready.empty() {
		return 0
	}
	return d.waiting
}

// Work runs handle for each record that is ready, in as many goroutines as
// workers says, until ctx ends and the running handlers have returned. Records
// that were not started stay for other callers of Work.
func (d *Dispatcher[R]) Work(ctx context.Context, workers int, handle func(*Item[R])) {
	d.WorkBatches(ctx, workers, 1, func(items []*Item[R]) { handle(items[0]) })
}

// WorkBatches is Work for handlers that take up to max records at once. The
// records of a batch have different keys, or none, so that the handler may
// settle them in any combination.
func (d *Dispatcher[R]) WorkBatches(ctx context.Context, workers, max int, handle func([]*Item[R])) {
	defer context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.work.Broadcast()
	})()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() { d.worker(ctx, &wg, max, handle) })
	}
	wg.Wait()
}

// afterGoexit is how long records wait whose handler ended its goroutine.
const afterGoexit = time.Second

// worker handles records until ctx ends. A handler that ends the goroutine, as
// t.FailNow does, has its records tried again by a new worker.
func (d *Dispatcher[R]) worker(ctx context.Context, wg *sync.WaitGroup, max int, handle func([]*Item[R])) {
	batch := make([]*Item[R], 0, max)
	entries := make([]*entry[R], 0, max)
	handling := false
	defer func() {
		if !handling {
			return
		}
		for _, it := range batch {
			it.Retry(afterGoexit)
		}
		d.mu.Lock()
		d.settle(entries)
		d.mu.Unlock()
		wg.Go(func() { d.worker(ctx, wg, max, handle) })
	}()
	for {
		if entries = d.next(ctx, entries, max); len(entries) == 0 {
			return
		}
		batch = batch[:0]
		for _, e := range entries {
			batch = append(batch, &e.Item)
		}
		handling = true
		handle(batch)
		handling = false
	}
}

// next settles what the worker has just handled and takes up to max further
// entries, waiting for the first. It returns none when ctx has ended.
func (d *Dispatcher[R]) next(ctx context.Context, entries []*entry[R], max int) []*entry[R] {
	d.mu.Lock()
	progress := d.settle(entries) && d.cfg.Progress != nil
	if progress && d.ready.empty() { // else it can be told without another round of the lock
		progress = false
		d.mu.Unlock()
		d.cfg.Progress()
		d.mu.Lock()
	}
	for d.ready.empty() && ctx.Err() == nil {
		d.waiting++
		d.work.Wait()
		d.waiting--
		d.waking = false
	}
	entries = entries[:0]
	if ctx.Err() == nil {
		for len(entries) < max && !d.ready.empty() {
			entries = append(entries, d.take())
		}
	}
	d.wake()
	d.mu.Unlock()
	if progress {
		d.cfg.Progress()
	}
	return entries
}

// wake has another worker look for records that are ready. It is one at a time:
// each wakes the next before it starts, and while none finds the time to do so,
// those that are awake do the work.
func (d *Dispatcher[R]) wake() {
	if d.waiting > 0 && !d.waking && !d.ready.empty() {
		d.waking = true
		d.work.Signal()
	}
}

func (d *Dispatcher[R]) take() *entry[R] {
	e := d.ready.pop()
	e.state = running
	e.lane.running++
	return e
}

// settle ends a run of each entry and reports whether a watermark moved.
func (d *Dispatcher[R]) settle(entries []*entry[R]) (progress bool) {
	for _, e := range entries {
		l := e.lane
		if l.running--; l.running == 0 && l.revoked {
			d.idle.Broadcast()
		}
		switch {
		case !e.retry:
			progress = d.done(e) || progress
		case l.revoked:
			d.drop(e)
		default:
			d.again(e)
		}
	}
	return progress
}

func (d *Dispatcher[R]) done(e *entry[R]) (progress bool) {
	e.state = done
	e.lane.held--
	d.release(1)
	d.pass(e)
	e.Item = Item[R]{Position: e.Position} // it may wait long for the watermark
	return e.lane.advance()
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
