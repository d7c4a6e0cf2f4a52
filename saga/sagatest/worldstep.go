package sagatest

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
)

// maxAttempts is how often a message is delivered to a consumer that fails.
const maxAttempts = 10

// move is one of the things that can happen next.
type move struct {
	fault fault
	d     *delivery
}

// step has the next thing happen. It reports false when there is none.
func (w *World) step() bool {
	lanes := w.lanes(now())
	if len(lanes) == 0 {
		return w.pass()
	}
	if w.run != nil && !w.run.enter(w) {
		return false
	}
	if w.steps++; w.steps > w.limit {
		w.fail(fmt.Errorf("the run has not ended after %d steps", w.limit))
		return false
	}
	moves := w.moves(lanes)
	n := 0
	if w.run != nil {
		n = w.run.choose(faultsOf(moves))
	}
	w.effects = false
	w.perform(moves[n])
	return true
}

// pass lets the time pass until something is due.
func (w *World) pass() bool {
	next := w.next(now())
	if next == nil {
		return false
	}
	w.trace.passes(next.at)
	time.Sleep(time.Until(next.at))
	return true
}

// moves are what can happen next: the first is what happens if nothing is wrong
// and nothing overtakes. The first of each lane costs nothing.
func (w *World) moves(lanes [][]*delivery) []move {
	var all []move
	for _, lane := range lanes {
		all = append(all, move{noFault, lane[0]})
	}
	if w.run == nil {
		return all
	}
	for _, lane := range lanes {
		if d := lane[0]; !d.copied && !d.act {
			all = append(all, move{duplicate, d})
		}
		if len(lane) > 1 {
			all = append(all, move{overtaking, lane[1]})
		}
	}
	if d := lanes[0][0]; d.reply && !d.copied {
		all = append(all, move{loss, d})
	}
	if d := w.next(now()); d != nil {
		all = append(all, move{timeout, d})
	}
	return all
}

func faultsOf(moves []move) []fault {
	all := make([]fault, len(moves))
	for i, m := range moves {
		all[i] = m.fault
	}
	return all
}

func (w *World) perform(m move) {
	w.trace.move(m)
	switch m.fault {
	case loss:
		w.remove(m.d)
		return
	case timeout:
		time.Sleep(time.Until(m.d.at))
	}
	w.deliver(m.d, w.process())
	if m.fault == duplicate {
		again := *m.d
		again.copied, again.reply, again.attempt = true, false, 0
		w.enqueue(&again)
	}
}

// process is the orchestrator that gets the next message.
func (w *World) process() int {
	if !w.alternate {
		return 0
	}
	return w.steps % 2
}

// deliver hands d to its consumer, once.
func (w *World) deliver(d *delivery, process int) {
	w.remove(d)
	outer := w.current
	w.current = d
	defer func() { w.current = outer }()
	if !d.to.saga {
		process = 0
	} else if w.orchestrators[process] == nil && w.fail(w.boot(process)) {
		return
	}
	err := d.to.handles[process](d.m.Copy())
	w.endCalls()
	switch {
	case w.crashed:
		w.crashed, d.reply = false, false // what was handled is not lost any more
		if d.to.saga {
			w.fail(w.boot(process))
		}
		w.putBack(d)
	case err == nil:
		if d.to.saga && !w.effects {
			w.trace.note("that changes nothing")
		}
	case eventbus.IsPermanent(err) || d.attempt+1 >= maxAttempts:
		w.trace.note("given up: %v", err)
		w.dead = append(w.dead, DeadLetter{d.topic, d.to.name, d.m, err})
	default:
		w.trace.note("to be delivered again: %v", err)
		d.attempt++
		d.at = now().Add(pauseOf(err))
		w.putBack(d)
	}
}

// pauseOf returns what an error says about when to try again.
func pauseOf(err error) time.Duration {
	var later interface{ RetryAfter() time.Duration }
	if errors.As(err, &later) {
		return later.RetryAfter()
	}
	return time.Second
}
