package dispatch

import (
	"context"

	"github.com/millrace-go/millrace/eventbus/internal/ring"
)

// Lane is one ordered stream of records, such as a partition. Its methods are
// safe for concurrent use, but records must be added in order, so by one
// goroutine at a time.
type Lane[R any] struct {
	d         *Dispatcher[R]
	order     ring.Ring[*entry[R]] // added and above the watermark
	keys      map[string]*entry[R] // the last record of each key that has any
	held      int                  // records that are not done
	running   int
	watermark int64
	moved     bool
	revoked   bool
	fenced    bool
}

// Lane returns a new, empty lane.
func (d *Dispatcher[R]) Lane() *Lane[R] {
	return &Lane[R]{d: d, keys: map[string]*entry[R]{}}
}

// Add appends a record. Positions must rise from call to call but need not be
// dense. Records with an empty key have no order among themselves. Add blocks
// while the dispatcher is at its limit; it returns the cause when ctx ends, and
// ErrRevoked after Revoke.
func (l *Lane[R]) Add(ctx context.Context, key string, position int64, attempt int, record R) error {
	d := l.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.full() {
		if err := l.waitForRoom(ctx); err != nil {
			return err
		}
	}
	if l.revoked {
		return ErrRevoked
	}
	l.append(key, position, attempt, record)
	d.wake()
	return nil
}

// Entry is a record for AddBatch.
type Entry[R any] struct {
	Key      string
	Position int64
	Attempt  int
	Record   R
}

// atOnce is how many records AddBatch adds before others may go on.
const atOnce = 32

// AddBatch is Add for several records, which costs less than one by one. It
// returns how many were added; all if err is nil.
func (l *Lane[R]) AddBatch(ctx context.Context, batch []Entry[R]) (added int, err error) {
	d := l.d
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.wake()
	for i := range batch {
		if i%atOnce == atOnce-1 { // let workers have the lock
			d.wake()
			d.mu.Unlock()
			d.mu.Lock()
		}
		if d.full() {
			d.wake()
			if err := l.waitForRoom(ctx); err != nil {
				return i, err
			}
		}
		if l.revoked {
			return i, ErrRevoked
		}
		l.append(batch[i].Key, batch[i].Position, batch[i].Attempt, batch[i].Record)
	}
	return len(batch), nil
}

func (l *Lane[R]) append(key string, position int64, attempt int, record R) {
	d := l.d
	e := d.alloc()
	e.Item = Item[R]{Key: key, Position: position, Attempt: attempt, Record: record}
	e.lane = l
	l.order.Push(e)
	l.held++
	d.held++
	if key == "" || l.enqueue(e) {
		d.push(e)
	}
}

func (l *Lane[R]) waitForRoom(ctx context.Context) error {
	d := l.d
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.room.Broadcast()
	})
	defer stop()
	for d.full() && !l.revoked {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		d.room.Wait()
	}
	return nil
}

// enqueue puts e behind its key and reports whether it is first.
func (l *Lane[R]) enqueue(e *entry[R]) bool {
	last := l.keys[e.Key]
	l.keys[e.Key] = e
	if last == nil {
		return true
	}
	last.behind = e
	return false
}

// dequeue takes e, the first of its key, out and returns the next, if any.
func (l *Lane[R]) dequeue(e *entry[R]) *entry[R] {
	next := e.behind
	if e.behind = nil; next == nil {
		delete(l.keys, e.Key)
	}
	return next
}

// advance moves the watermark over what is done from the front.
func (l *Lane[R]) advance() (progress bool) {
	if l.fenced {
		return false
	}
	for l.order.Len() > 0 && l.order.At(0).state == done {
		e := l.order.Pop()
		l.watermark, l.moved, progress = e.Position, true, true
		l.d.recycle(e)
	}
	if l.order.Len() > 2*l.held+compactSlack {
		l.compact()
	}
	return progress
}

// compactSlack is how much longer than needed order may become.
const compactSlack = 1024

// compact keeps, of neighbours that are done, only the last: the watermark will
// pass them together. That bounds the memory behind a record that is held for
// long by the number of records that are not done.
func (l *Lane[R]) compact() {
	var kept ring.Ring[*entry[R]]
	for l.order.Len() > 0 {
		e := l.order.Pop()
		if e.state == done && l.order.Len() > 0 && l.order.At(0).state == done {
			l.d.recycle(e)
			continue
		}
		kept.Push(e)
	}
	l.order = kept
}

// Len returns how many records of the lane are not done.
func (l *Lane[R]) Len() int {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	l.d.reapAll()
	return l.held
}

// Watermark returns the position up to which every record is done; ok is false
// while no record at the front of the lane is.
func (l *Lane[R]) Watermark() (position int64, ok bool) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	l.d.reapAll()
	return l.watermark, l.moved
}

// Revoke withdraws the lane: records that have not started are dropped, and
// Revoke waits for those that run. It returns the cause when ctx ends first;
// the watermark then never moves again, however the stragglers end.
func (l *Lane[R]) Revoke(ctx context.Context) error {
	d := l.d
	d.mu.Lock()
	defer d.mu.Unlock()
	l.withdraw()
	stop := context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.idle.Broadcast()
	})
	defer stop()
	for l.running > 0 {
		if ctx.Err() != nil {
			l.fenced = true
			return context.Cause(ctx)
		}
		d.idle.Wait()
	}
	return nil
}

// Abandon is Revoke that waits for nothing: what still runs is settled no more.
func (l *Lane[R]) Abandon() {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	l.withdraw()
	l.fenced = l.fenced || l.running > 0
}

// withdraw takes no more records and drops those that don't run.
func (l *Lane[R]) withdraw() {
	if l.revoked {
		return
	}
	l.d.recallAll()
	l.revoked = true
	l.dropIdle()
	l.d.room.Broadcast()
}

func (l *Lane[R]) dropIdle() {
	l.d.ready.without(l)
	for i := range l.order.Len() {
		e := l.order.At(i)
		if e.state == running || e.state == done {
			continue
		}
		if e.state == delayed {
			l.d.delayed--
			e.timer.Stop()
		}
		l.d.drop(e)
	}
}
