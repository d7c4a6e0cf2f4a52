package amqpbus

import (
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// pending is the place of a record among those that are not acknowledged.
type pending struct {
	tag        uint64
	tally      *tally
	prev, next *record
	settled    bool
}

// tally acknowledges the events of one channel: those at the front together, up
// to the first that is not settled, and those behind it one by one when it
// takes long, so that it does not use up the prefetch.
type tally struct {
	ch    *amqp.Channel
	eager int           // that many settled events are acknowledged at once
	wake  chan struct{} // something is settled
	full  chan struct{} // so much that it should not wait

	mu         sync.Mutex
	head, tail *record // in order of tags
	settled    int     // of them
	closed     bool
}

const (
	ackEvery   = 5 * time.Millisecond
	stallAfter = 20 * time.Millisecond
)

func newTally(ch *amqp.Channel, prefetch int) *tally {
	return &tally{ch: ch, eager: max(1, prefetch/8), wake: make(chan struct{}, 1), full: make(chan struct{}, 1)}
}

// add appends a record; tags rise.
func (t *tally) add(r *record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.tally = t
	r.prev = t.tail
	if t.tail == nil {
		t.head = r
	} else {
		t.tail.next = r
	}
	t.tail = r
}

// settle notes that r may be acknowledged.
func (t *tally) settle(r *record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.settled || t.closed {
		return
	}
	r.settled = true
	t.settled++
	if t.settled == 1 {
		poke(t.wake)
	}
	if t.settled >= t.eager {
		poke(t.full)
	}
}

// keep acknowledges until stop is closed.
func (t *tally) keep(stop <-chan struct{}) {
	pause, stalled := time.NewTimer(time.Hour), time.Time{}
	defer pause.Stop()
	for {
		select {
		case <-t.wake:
			pause.Reset(ackEvery)
			continue
		case <-t.full:
		case <-pause.C:
		case <-stop:
			return
		}
		left, err := t.flush(!stalled.IsZero() && time.Since(stalled) >= stallAfter)
		switch {
		case err != nil:
			return // the channel is closed
		case left == 0:
			stalled = time.Time{}
			continue
		case stalled.IsZero():
			stalled = time.Now()
		}
		pause.Reset(ackEvery)
	}
}

// flush acknowledges what is settled: at the front, and all of it if asked to or
// if much has come together. It returns how much is left.
func (t *tally) flush(all bool) (left int, err error) {
	front, others := t.collect(all)
	if front > 0 {
		err = t.ch.Ack(front, true)
	}
	for _, tag := range others {
		if err == nil {
			err = t.ch.Ack(tag, false)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.settled, err
}

// collect takes out what is to be acknowledged. RabbitMQ refuses tags that it
// does not wait for, so the tag for the front is one that was not acknowledged
// alone.
func (t *tally) collect(all bool) (front uint64, others []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.head != nil && t.head.settled {
		front = t.head.tag
		t.remove(t.head)
	}
	if t.settled == 0 || !all && t.settled < 2*t.eager {
		return front, nil
	}
	for r := t.head; r != nil; {
		next := r.next
		if r.settled {
			others = append(others, r.tag)
			t.remove(r)
		}
		r = next
	}
	return front, others
}

func (t *tally) remove(r *record) {
	if r.prev == nil {
		t.head = r.next
	} else {
		r.prev.next = r.next
	}
	if r.next == nil {
		t.tail = r.prev
	} else {
		r.next.prev = r.prev
	}
	r.prev, r.next = nil, nil
	t.settled--
}

// close has later settlements ignored: the broker will deliver again.
func (t *tally) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}
