package sagatest

import (
	"slices"
	"strings"
	"time"

	"github.com/millrace-go/millrace/saga"
)

// fault is something that goes wrong.
type fault int

const (
	noFault fault = iota
	crash
	duplicate
	loss
	overtaking
	timeout
	race
	faultKinds
)

// ending is how a commit of the orchestrator ends.
type ending struct {
	fault fault
	how   commitEnd
	rival *delivery // that another process handles before it or right after it
}

type commitEnd int

const (
	commits commitEnd = iota
	crashBefore
	crashAfter
	overtaken
	followed
)

// crash ends the process that handles something. What it handled comes again.
func (w *World) crash(when string) error {
	w.crashed = true
	w.trace.note("FAULT: the process crashes %s", when)
	return errCrashed
}

// chooseEnding says how a commit ends.
func (w *World) chooseEnding(c saga.Commit) ending {
	if w.run == nil || w.nested || w.current == nil {
		return ending{}
	}
	all := w.endings(c)
	faults := make([]fault, len(all))
	for i, e := range all {
		faults[i] = e.fault
	}
	return all[w.run.choose(faults)]
}

// endings are the ways in which a commit can end. A crash before it is left out
// where the delivery has had no effect yet: the state would be the one from
// before. So is what happens right after it, unless calls follow, during which
// other messages are handled.
func (w *World) endings(c saga.Commit) []ending {
	all := []ending{{}, {fault: crash, how: crashAfter}}
	if w.effects {
		all = append(all, ending{fault: crash, how: crashBefore})
	}
	rivals := w.rivals()
	for _, d := range rivals {
		all = append(all, ending{race, overtaken, d})
	}
	if !isCalling(c.Instance) {
		return all
	}
	if d := w.next(now()); d != nil && d.to.saga {
		rivals = append(rivals, d)
	}
	for _, d := range rivals {
		all = append(all, ending{race, followed, d})
	}
	return all
}

// crashesHandled says whether a participant crashes after its commit. Where
// messages may come twice that is nothing new, and before its commit it never is:
// nothing has happened then.
func (w *World) crashesHandled() bool {
	return w.run != nil && !w.nested && !w.run.duplicates && w.run.choose([]fault{noFault, crash}) == 1
}

// rivals are deliveries to orchestrators that may happen at the same time as the
// current one.
func (w *World) rivals() []*delivery {
	var all []*delivery
	for _, lane := range w.lanes(now()) {
		if d := lane[0]; d.to.saga && (d.copied || d.lane() != w.current.lane()) {
			all = append(all, d)
		}
	}
	return all
}

// deliverWithin has another process handle d meanwhile.
func (w *World) deliverWithin(d *delivery, when string) {
	w.nested = true
	w.trace.within(d, when)
	time.Sleep(time.Until(d.at))
	w.deliver(d, 1)
	w.trace.back()
	w.nested = false
}

// answerCall is the way back of a call to a participant. Calls that are made side
// by side have one fate.
func (w *World) answerCall(tx *Tx) error {
	w.calling.Lock()
	defer w.calling.Unlock()
	if w.current == nil {
		return tx.publish()
	}
	w.called, w.effects = append(w.called, tx), true
	if !w.fate && w.run != nil && !w.nested {
		w.fate, w.lateCall = true, w.run.choose([]fault{noFault, loss}) == 1
	}
	if w.lateCall {
		return errLost
	}
	return nil
}

// endCalls publishes what calls have published, in an order that does not depend
// on which of them was faster.
func (w *World) endCalls() {
	slices.SortStableFunc(w.called, func(a, b *Tx) int { return strings.Compare(a.cause, b.cause) })
	for _, tx := range w.called {
		w.fail(tx.publish())
	}
	if w.lateCall {
		w.trace.note("FAULT: %v", errLost)
	}
	w.called, w.fate, w.lateCall = nil, false, false
}
