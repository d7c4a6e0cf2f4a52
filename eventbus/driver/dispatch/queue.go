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
	n          int
}

func (q *queue[R]) empty() bool { return q.head == nil }

func (q *queue[R]) push(e *entry[R]) {
	if q.tail == nil {
		q.head = e
	} else {
		q.tail.nextReady = e
	}
	q.tail = e
	q.n++
}

// unpop puts e before all others.
func (q *queue[R]) unpop(e *entry[R]) {
	if e.nextReady = q.head; q.head == nil {
		q.tail = e
	}
	q.head = e
	q.n++
}

func (q *queue[R]) pop() *entry[R] {
	e := q.head
	q.head = e.nextReady
	if q.head == nil {
		q.tail = nil
	}
	e.nextReady = nil
	q.n--
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
