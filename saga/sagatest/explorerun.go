package sagatest

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// run is the choices of one run.
type run struct {
	schedule schedule
	left     budget // when the schedule has been followed
	visit    func(d digest, left budget) bool

	duplicates bool // are among the faults

	next   int       // number of the next point
	first  int       // number of the first of points
	points [][]fault // the options of the points after those of the schedule
	faults int
	pruned bool // at a state that was seen in another run

	own     map[digest]bool // states of this run
	looping bool            // one of them has come again: nothing new but whether it ends
	astray  error
}

// choose returns the number of one of the options at the next point.
func (r *run) choose(options []fault) int {
	if r.looping {
		return 0
	}
	at := r.next
	r.next++
	if len(r.schedule) == 0 || at > r.schedule.last() {
		if len(r.points) == 0 {
			r.first = at
		}
		r.points = append(r.points, options)
		return 0
	}
	option := r.schedule.at(at)
	if option >= len(options) {
		r.astray = fmt.Errorf("the schedule takes option %d of %d at point %d: it is the schedule of something else, or the run depends on chance", option, len(options), at)
		return 0
	}
	if options[option] != noFault {
		r.faults++
	}
	return option
}

// enter reports whether to go on from the state of w.
func (r *run) enter(w *World) bool {
	if len(r.schedule) > 0 && r.next <= r.schedule.last() {
		return true
	}
	if r.looping {
		return true
	}
	d := w.state()
	if r.looping = r.own[d]; r.looping {
		return true
	}
	if r.own == nil {
		r.own = map[digest]bool{}
	}
	r.own[d] = true
	r.pruned = !r.visit(d, r.left)
	return !r.pruned
}

// strayed says what was wrong with following the schedule.
func (r *run) strayed() error {
	if r.astray != nil {
		return r.astray
	}
	if len(r.schedule) > 0 && r.next <= r.schedule.last() {
		return errors.New("the run has ended before its schedule: it is the schedule of something else, or the run depends on chance")
	}
	return nil
}

// choice is to take another option than the first at a point.
type choice struct{ point, option int }

// schedule is choices by their points. At all other points the first option is
// taken.
type schedule []choice

func (s schedule) last() int { return s[len(s)-1].point }

func (s schedule) at(point int) int {
	for _, c := range s {
		if c.point == point {
			return c.option
		}
	}
	return 0
}

// with returns s with one more choice. s stays as it is.
func (s schedule) with(c choice) schedule {
	return append(s[:len(s):len(s)], c)
}

// fifo is the schedule in which nothing goes wrong and nothing overtakes.
const fifo = "fifo"

// String returns the form that parseSchedule reads, such as "4=1 17=3".
func (s schedule) String() string {
	if len(s) == 0 {
		return fifo
	}
	parts := make([]string, len(s))
	for i, c := range s {
		parts[i] = fmt.Sprintf("%d=%d", c.point, c.option)
	}
	return strings.Join(parts, " ")
}

func parseSchedule(text string) (schedule, error) {
	if text == fifo {
		return nil, nil
	}
	var s schedule
	for _, part := range strings.Fields(text) {
		point, option, ok := strings.Cut(part, "=")
		p, err1 := strconv.Atoi(point)
		o, err2 := strconv.Atoi(option)
		if !ok || errors.Join(err1, err2) != nil || p < 0 || o < 0 || len(s) > 0 && p <= s.last() {
			return nil, fmt.Errorf("sagatest: Exploration.Schedule: %q is not the schedule of a failure, such as \"4=1 17=3\" or %q", text, fifo)
		}
		s = append(s, choice{p, o})
	}
	if len(s) == 0 {
		return nil, fmt.Errorf("sagatest: Exploration.Schedule is blank")
	}
	return s, nil
}
