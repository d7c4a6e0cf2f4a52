package dispatch

import "time"

type state uint8

const (
	waiting state = iota // behind another record of its key
	ready
	running
	delayed
	done
	dropped
)

type entry[R any] struct {
	Item[R]
	lane      *Lane[R]
	behind    *entry[R] // next of the same key
	nextReady *entry[R]
	timer     *time.Timer
	state     state
}

// queue is the list of entries that are ready.
type queue[R any] struct {
	head, tail *entry[R]
}

func (q *queue[R]) empty() bool { return q.head == nil }

func (q *queue[R]) push(e *entry[R]) {
	if q.tail == nil {
		q.head = e
	} else {
		q.tail.nextReady = e
	}
	q.tail = e
}

func (q *queue[R]) pop() *entry[R] {
	e := q.head
	q.head = e.nextReady
	if q.head == nil {
		q.tail = nil
	}
	e.nextReady = nil
	return e
}

// without removes the entries of lane l.
func (q *queue[R]) without(l *Lane[R]) {
	var kept queue[R]
	for !q.empty() {
		if e := q.pop(); e.lane != l {
			kept.push(e)
		}
	}
	*q = kept
}

// fifo is a queue in a slice that gives its space back.
type fifo[R any] struct {
	items []*entry[R]
	start int
}

func (f *fifo[R]) push(e *entry[R]) {
	if f.start > 32 && f.start*2 > len(f.items) {
		n := copy(f.items, f.items[f.start:])
		clear(f.items[n:])
		f.items, f.start = f.items[:n], 0
	}
	f.items = append(f.items, e)
}

func (f *fifo[R]) first() *entry[R] {
	if f.start == len(f.items) {
		return nil
	}
	return f.items[f.start]
}

func (f *fifo[R]) pop() {
	f.items[f.start] = nil
	f.start++
}

func (f *fifo[R]) each(visit func(*entry[R])) {
	for _, e := range f.items[f.start:] {
		visit(e)
	}
}
