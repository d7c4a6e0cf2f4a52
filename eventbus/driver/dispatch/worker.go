package dispatch

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Work runs handle for each record that is ready, in as many goroutines as
// workers says, until ctx ends and the running handlers have returned. Records
// that were not started stay for other callers of Work.
func (d *Dispatcher[R]) Work(ctx context.Context, workers int, handle func(*Item[R])) {
	d.employ(ctx, workers, false, func(h *hand[R]) {
		for h.size = 1; d.next(ctx, h, h.size); {
			if len(h.entries) < h.size { // too few to tell a pace by
				d.run(ctx, h, handle)
				continue
			}
			begin := time.Now()
			d.run(ctx, h, handle)
			h.adapt(time.Since(begin))
		}
	})
}

// run calls handle for what h holds.
func (d *Dispatcher[R]) run(ctx context.Context, h *hand[R], handle func(*Item[R])) {
	for e := h.entries[0]; e != nil; e = h.step() {
		handle(&e.Item)
		if e.retry || ctx.Err() != nil { // the delay begins now, or nothing else may begin
			d.mu.Lock()
			d.recall(h)
			d.mu.Unlock()
		}
	}
}

// adapt has the worker take more from now on, or one by one, by what the last round
// took.
func (h *hand[R]) adapt(took time.Duration) {
	done, _ := h.load()
	if took > time.Duration(done)*quick {
		h.size = 1
		return
	}
	h.size = min(2*h.size, mostTaken)
}

// WorkBatches is Work for handlers that take up to max records at once. The
// records of a batch have different keys, or none, so that the handler may
// settle them in any combination.
func (d *Dispatcher[R]) WorkBatches(ctx context.Context, workers, max int, handle func([]*Item[R])) {
	d.employ(ctx, workers, true, func(h *hand[R]) {
		batch := make([]*Item[R], 0, max)
		for d.next(ctx, h, max) {
			batch = batch[:0]
			for _, e := range h.entries {
				batch = append(batch, &e.Item)
			}
			handle(batch)
			h.finish()
		}
	})
}

// employ has work done by so many workers, each with a hand, and returns when all
// have returned. One that ends its goroutine in a handler, as t.FailNow does, is
// replaced.
func (d *Dispatcher[R]) employ(ctx context.Context, workers int, whole bool, work func(*hand[R])) {
	defer context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.work.Broadcast()
	})()
	var wg sync.WaitGroup
	var hire func()
	hire = func() {
		wg.Go(func() {
			h := d.join(whole)
			defer func() {
				if d.leave(h) {
					hire()
				}
			}()
			work(h)
		})
	}
	for range workers {
		hire()
	}
	wg.Wait()
}

func (d *Dispatcher[R]) join(whole bool) *hand[R] {
	h := &hand[R]{whole: whole}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hands = append(d.hands, h)
	return h
}

// afterGoexit is how long records wait whose handler ended its goroutine.
const afterGoexit = time.Second

// leave reports whether a handler was cut short. Its records are tried again.
func (d *Dispatcher[R]) leave(h *hand[R]) (cut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recall(h)
	done, end := h.load()
	for _, e := range h.entries[done:end] {
		e.Retry(afterGoexit)
	}
	d.settle(h.entries[done:end])
	d.hands = slices.DeleteFunc(d.hands, func(other *hand[R]) bool { return other == h })
	d.wake()
	return end > done
}

// next settles what the worker has just handled and takes up to max further
// entries, waiting for the first. It takes none when ctx has ended.
func (d *Dispatcher[R]) next(ctx context.Context, h *hand[R], max int) bool {
	d.mu.Lock()
	d.reap(h)
	h.entries = h.entries[:0]
	h.fill()
	for ctx.Err() == nil && !d.anyReady() {
		if d.moved { // else it is told without another round of the lock
			d.unlockAndTell()
			d.mu.Lock()
			continue
		}
		d.waiting++
		d.work.Wait()
		d.waiting--
		d.waking = false
	}
	if ctx.Err() == nil {
		d.take(h, max)
	}
	d.wake()
	d.unlockAndTell()
	return len(h.entries) > 0
}

// take fills h. A worker that handles one by one leaves half for others.
func (d *Dispatcher[R]) take(h *hand[R], max int) {
	n := min(max, d.ready.n)
	if !h.whole {
		n = min(n, (d.ready.n+1)/2)
	}
	for range n {
		e := d.ready.pop()
		e.state = running
		e.lane.running++
		h.entries = append(h.entries, e)
	}
	h.fill()
	if n > 1 && !h.whole {
		d.loosen()
	}
}

// wake has another worker look for records that are ready. It is one at a time:
// each wakes the next before it starts, and while none finds the time to do so,
// those that are awake do the work.
func (d *Dispatcher[R]) wake() {
	if d.waiting > 0 && !d.waking && (d.loose || !d.ready.empty()) {
		d.waking = true
		d.work.Signal()
	}
}

// unlockAndTell calls Progress if there was any.
func (d *Dispatcher[R]) unlockAndTell() {
	moved := d.moved
	d.moved = false
	d.mu.Unlock()
	if moved && d.cfg.Progress != nil {
		d.cfg.Progress()
	}
}
