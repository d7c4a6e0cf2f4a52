package sagatest

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-go/millrace/saga"
)

// Exploration says what to explore, and within which bounds.
type Exploration struct {
	// Setup makes the world of a run: Orchestrate the definitions, register the
	// participants' handlers, publish what begins the sagas. It is called for each
	// run and must do the same each time; nothing may be remembered between runs,
	// nor outside of the world.
	Setup func(w *World)
	// Invariant is checked at the end of each run, when every instance has ended.
	// It must be a function of the instances and the participants' data, not of
	// their history: a run is not followed to its end if another was that has come
	// by another way to the same state.
	Invariant func(w *World) error
	// Always, if set, is checked after each step.
	Always func(w *World) error
	// Faults bounds what goes wrong in one run.
	Faults Faults
	// AllowStuck accepts runs that end with an instance that is stuck. The
	// Invariant can look at it.
	AllowStuck bool
	// AllowDeadLetters accepts runs in which a message was given up.
	AllowDeadLetters bool
	// MaxRuns bounds the exploration. Defaults to 100,000.
	MaxRuns int
	// MaxSteps bounds each run, which fails if it takes more. Defaults to 500.
	MaxSteps int
	// Seed, if not 0, has the schedules with the same number of faults explored in
	// an order of its own, so that an exploration that MaxRuns cuts short sees
	// others. 0 begins with those that differ least from first come, first served.
	Seed uint64
	// Schedule, if set, replays one run instead: the Schedule of a Failure.
	Schedule string

	alternate bool // two orchestrators take turns
}

// Faults bounds what goes wrong in one run. The zero value means two faults of
// any kinds.
type Faults struct {
	// Total of all kinds. 0 means two, a negative number none.
	Total int
	// Crashes of a process, the orchestrator's or a participant's, before or after
	// a commit. What it handled is delivered again. For this and the other kinds 0
	// means as many as Total, a negative number none.
	Crashes int
	// Duplicates are deliveries that are repeated, at any later time.
	Duplicates int
	// Losses are answers that never arrive at the saga.
	Losses int
	// Overtakings break the order of messages with one key.
	Overtakings int
	// Timeouts are timers that are due while messages are still on their way.
	Timeouts int
	// Races are messages that another process of the orchestrator handles while
	// one is about to commit.
	Races int
}

// budget is how many faults of each kind are left; that of noFault is the total.
type budget [faultKinds]int

func (f Faults) budget() budget {
	total := 2
	if f.Total != 0 {
		total = max(0, f.Total)
	}
	b := budget{noFault: total, crash: f.Crashes, duplicate: f.Duplicates, loss: f.Losses, overtaking: f.Overtakings, timeout: f.Timeouts, race: f.Races}
	for kind := range b {
		if b[kind] == 0 {
			b[kind] = total
		}
		b[kind] = min(total, max(0, b[kind]))
	}
	return b
}

// after returns what is left after a fault, and whether it was affordable.
func (b budget) after(f fault) (budget, bool) {
	if f == noFault {
		return b, true
	}
	ok := b[f] > 0
	b[noFault]--
	b[f]--
	for kind := range b {
		b[kind] = min(b[kind], b[noFault])
	}
	return b, ok
}

// covers reports whether all that b2 can afford is affordable with b.
func (b budget) covers(b2 budget) bool {
	for kind := range b {
		if b[kind] < b2[kind] {
			return false
		}
	}
	return true
}

// Explore runs the sagas under every order of deliveries and every combination
// of faults within the bounds, and fails the test with the smallest
// counter-example if there is a run that does not end, or not well. Call it
// outside of synctest.Test: each run is in a bubble of its own.
func Explore(t *testing.T, e Exploration) Report {
	t.Helper()
	began := time.Now()
	r := check(t, e)
	if r.Failure != nil {
		t.Fatalf("%v", r)
	}
	t.Logf("%v, in %v", r, time.Since(began).Round(time.Millisecond))
	return r
}

// Check is Explore that returns what it finds.
func Check(e Exploration) Report { return check(new(testing.T), e) }

func check(t *testing.T, e Exploration) Report {
	if e.Setup == nil {
		return Report{Failure: &Failure{Err: errors.New("sagatest: Exploration.Setup is nil")}}
	}
	if inBubble() {
		return Report{Failure: &Failure{Err: errors.New("sagatest: Explore must not be called within synctest.Test: each run is in a bubble of its own")}}
	}
	if e.MaxRuns <= 0 {
		e.MaxRuns = 100_000
	}
	if e.MaxSteps <= 0 {
		e.MaxSteps = 500
	}
	x := newExplorer(t, e)
	if e.Schedule != "" {
		s, err := parseSchedule(e.Schedule)
		if err != nil {
			return Report{Failure: &Failure{Err: err}}
		}
		return x.replay(s)
	}
	return x.explore()
}

// execute makes one run, in a bubble.
func (e *Exploration) execute(t *testing.T, r *run, tr *trace) (failure error) {
	synctest.Test(t, func(*testing.T) {
		w := newWorld()
		w.run, w.trace, w.limit, w.alternate = r, tr, e.MaxSteps, e.alternate
		defer func() {
			if v := recover(); v != nil {
				failure = fmt.Errorf("panic: %v", v)
			}
		}()
		failure = e.drive(w)
	})
	return failure
}

func (e *Exploration) drive(w *World) error {
	e.Setup(w)
	for w.failure == nil && w.step() {
		if e.Always != nil && w.failure == nil {
			w.fail(e.Always(w))
		}
		if !e.AllowDeadLetters && len(w.dead) > 0 {
			d := w.dead[0]
			w.fail(fmt.Errorf("dead letter: %s has given up a message of topic %q: %w", d.Consumer, d.Topic, d.Err))
		}
	}
	if w.failure != nil || w.run.pruned {
		return w.failure
	}
	if err := w.ended(e.AllowStuck); err != nil || e.Invariant == nil {
		return err
	}
	return e.Invariant(w)
}

// ended tells which instance has not ended although nothing more will happen.
func (w *World) ended(allowStuck bool) error {
	var errs []error
	for _, i := range w.Instances() {
		switch {
		case i.Status.Ended():
		case i.Status != saga.Stuck:
			history := w.store.kept[[2]string{i.Saga, i.ID}].history
			errs = append(errs, fmt.Errorf("instance %q of saga %q will never end: nothing is on its way, and it is %s", i.ID, i.Saga, history[len(history)-1].To))
		case !allowStuck:
			errs = append(errs, fmt.Errorf("instance %q of saga %q is stuck: %s", i.ID, i.Saga, firstLine(i.Error)))
		}
	}
	return errors.Join(errs...)
}
