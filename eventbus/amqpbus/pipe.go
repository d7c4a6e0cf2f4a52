package amqpbus

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// pipe publishes to one topic, in order, on a channel of its own. So a topic
// whose queues are stuck holds up no other.
type pipe struct {
	b     *Broker
	topic string
	life  context.Context
	done  sync.WaitGroup
	wake  chan struct{}

	patience time.Duration // of the writer, for a confirm

	mu        sync.Mutex
	ended     bool
	next      uint64      // order of the next event
	waiting   []*outgoing // not on their way
	returned  []*outgoing // by the broker, to be published to the unclaimed queue
	abandoned int         // how many of those, at most, nobody waits for
	careful   int         // that many are published one at a time
	stuck     error       // why the topic can't be published to at the moment
}

// idleAfter is how long a topic's channel is kept for the next event.
const idleAfter = time.Minute

// send hands events to the pipe of the topic, which it starts if need be.
func (b *Broker) send(topic string, events []outgoing) (*pipe, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Err() != nil {
		return nil, driver.ErrClosed
	}
	p := b.pipes[topic]
	if p == nil || !p.add(events) {
		p = &pipe{b: b, topic: topic, life: b.open, wake: make(chan struct{}, 1), patience: minPatience}
		b.pipes[topic] = p
		p.add(events)
		p.done.Go(p.run)
	}
	return p, nil
}

// add fails when the pipe has ended.
func (p *pipe) add(events []outgoing) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return false
	}
	for i := range events {
		events[i].order = p.next
		p.next++
		p.waiting = append(p.waiting, &events[i])
	}
	poke(p.wake)
	return true
}

// run serves the pipe until the broker is closed or nothing is published for a
// while.
func (p *pipe) run() {
	pause := minBackoff
	for {
		idle := p.idle()
		for p.life.Err() == nil && !idle {
			s, err := p.b.publishing.get(p.life)
			if err != nil {
				break // closed
			}
			var healthy bool
			if idle, healthy, err = p.serve(s); err != nil {
				p.noteStuck(err)
			}
			if healthy {
				pause = minBackoff
			} else if !idle {
				wait(p.life, jitter(pause))
				pause = min(2*pause, time.Second)
			}
		}
		if p.end() {
			return
		}
	}
}

// end ends the pipe unless events came in the meantime.
func (p *pipe) end() bool {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) > 0 && p.life.Err() == nil {
		return false
	}
	p.ended = true
	if p.b.pipes[p.topic] == p {
		delete(p.b.pipes, p.topic)
	}
	return true
}

func (p *pipe) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting)+len(p.returned) == 0
}

// take returns the next event that somebody still waits for. What was published
// before all others comes first.
func (p *pipe) take() *outgoing {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := firstOf(&p.returned)
	if o == nil {
		o = firstOf(&p.waiting)
	}
	if o != nil {
		o.call.errs[o.index] = errUnknown
	}
	return o
}

func firstOf(events *[]*outgoing) *outgoing {
	for len(*events) > 0 {
		o := (*events)[0]
		(*events)[0] = nil
		if *events = (*events)[1:]; len(*events) == 0 {
			*events = nil
		}
		if !o.call.abandoned.Load() {
			return o
		}
	}
	return nil
}

// takeBack keeps an event that is to go another way.
func (p *pipe) takeBack(o *outgoing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !o.call.abandoned.Load() {
		p.returned = append(p.returned, o)
	}
}

// abandon lets go of the events of c. They are looked for when there may be more
// of their kind than others: each time would be slow.
func (p *pipe) abandon(c *call) {
	c.abandoned.Store(true)
	p.abandoned += c.open
	if 2*p.abandoned < len(p.waiting)+len(p.returned) {
		return
	}
	p.waiting, p.returned = wanted(p.waiting), wanted(p.returned)
	p.abandoned = 0
}

func wanted(events []*outgoing) []*outgoing {
	events = slices.DeleteFunc(events, func(o *outgoing) bool { return o.call.abandoned.Load() })
	if len(events) == 0 {
		return nil
	}
	return events
}

// giveBack returns events whose channel is gone to where they were, so that
// none overtakes another.
func (p *pipe) giveBack(events []*outgoing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	events = append(events, p.returned...)
	p.returned = nil
	for _, o := range events {
		o.unclaimed = false // there may be a group by now
	}
	p.waiting = wanted(append(events, p.waiting...))
	slices.SortFunc(p.waiting, func(a, b *outgoing) int { return cmp.Compare(a.order, b.order) })
}

// settle gives o its outcome.
func (p *pipe) settle(o *outgoing, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish(o, err)
}

func (p *pipe) finish(o *outgoing, err error) {
	p.careful = max(0, p.careful-1)
	c := o.call
	if c.abandoned.Load() {
		return
	}
	c.errs[o.index] = err
	if c.open--; c.open == 0 {
		close(c.done)
	}
}

// failAll gives every waiting event the same error.
func (p *pipe) failAll(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.waiting {
		p.finish(o, err)
	}
	p.waiting = nil
}

// beCareful has the next n events published one at a time.
func (p *pipe) beCareful(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.careful = n
}

// window is how many events may be on their way without a confirm.
func (p *pipe) window() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.careful > 0 {
		return 1
	}
	return window
}

func (p *pipe) noteStuck(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stuck = err
}

// reason returns what keeps events from being published, nil if nothing known.
func (p *pipe) reason() error {
	if err := p.b.publishing.reason(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stuck
}

var errRefused = errors.New("the broker refused it (nack)")
