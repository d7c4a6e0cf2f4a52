package sagatest

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// explorer searches the tree of schedules. It is stateless: each run starts from
// the beginning and follows a schedule, a list of choices, and then the first
// option at each point. What it could have chosen there are further schedules.
// They are tried by their number of faults, so that the first failure is one with
// the fewest. A run is cut short where it arrives at a state that was seen with
// at least as many faults left.
type explorer struct {
	t    *testing.T
	e    Exploration
	seen map[digest][]budget
	// queues of schedules by their number of faults
	queues [][]task
	random *rand.Rand
	report Report
}

// task is a schedule to be tried.
type task struct {
	schedule schedule
	left     budget // after all its choices
}

func newExplorer(t *testing.T, e Exploration) *explorer {
	x := &explorer{t: t, e: e, seen: map[digest][]budget{}}
	if e.Seed != 0 {
		x.random = rand.New(rand.NewPCG(e.Seed, 0))
	}
	return x
}

func (x *explorer) explore() Report {
	all := x.e.Faults.budget()
	x.queues = make([][]task, all[noFault]+1)
	x.queues[0] = []task{{left: all}}
	for faults := range x.queues {
		for len(x.queues[faults]) > 0 {
			if x.report.Runs == x.e.MaxRuns {
				return x.report
			}
			if !x.try(x.pop(faults), faults) {
				return x.report
			}
		}
	}
	x.report.Complete = true
	return x.report
}

func (x *explorer) pop(faults int) task {
	q := x.queues[faults]
	if x.random != nil {
		i := x.random.IntN(len(q))
		q[0], q[i] = q[i], q[0]
	}
	t := q[0]
	q[0] = task{}
	x.queues[faults] = q[1:]
	return t
}

// try makes the run of a schedule. It reports false if the run failed.
func (x *explorer) try(t task, faults int) bool {
	r := &run{schedule: t.schedule, left: t.left, visit: x.visit, duplicates: x.duplicates()}
	failure := x.e.execute(x.t, r, nil)
	x.report.Runs++
	x.report.ChoicePoints += len(r.points)
	x.report.States = len(x.seen)
	if failure == nil {
		failure = r.strayed()
	}
	if failure != nil {
		x.report.Failure = x.explain(t.schedule, failure, faults)
		return false
	}
	for i, options := range r.points {
		for option, f := range options {
			left, affordable := t.left.after(f)
			if option == 0 || !affordable {
				continue
			}
			level := faults
			if f != noFault {
				level++
			}
			x.queues[level] = append(x.queues[level], task{t.schedule.with(choice{r.first + i, option}), left})
		}
	}
	return true
}

// visit reports whether a state is to be explored, and remembers it.
func (x *explorer) visit(d digest, left budget) bool {
	for _, b := range x.seen[d] {
		if b.covers(left) {
			return false
		}
	}
	x.seen[d] = append(x.seen[d], left)
	return true
}

// replay makes one run.
func (x *explorer) replay(s schedule) Report {
	r := &run{schedule: s, visit: func(digest, budget) bool { return true }, duplicates: x.duplicates()}
	failure := x.e.execute(x.t, r, nil)
	if failure == nil {
		failure = r.strayed()
	}
	x.report.Runs, x.report.ChoicePoints = 1, r.next
	if failure != nil {
		x.report.Failure = x.explain(s, failure, r.faults)
	}
	return x.report
}

// explain makes a run again, to tell what happens in it.
func (x *explorer) explain(s schedule, failure error, faults int) *Failure {
	tr := &trace{}
	r := &run{schedule: s, visit: func(digest, budget) bool { return true }, duplicates: x.duplicates()}
	again := x.e.execute(x.t, r, tr)
	if again == nil || again.Error() != failure.Error() {
		failure = fmt.Errorf("%w\nand not so when the same schedule was run again: something is remembered outside of the world, or depends on chance", failure)
	}
	return &Failure{Err: failure, Faults: faults, Schedule: s.String(), Steps: tr.steps}
}

func (x *explorer) duplicates() bool { return x.e.Faults.budget()[duplicate] > 0 }
