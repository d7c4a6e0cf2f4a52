package sagatest

import (
	"fmt"
	"strings"
)

// Report is what an exploration has found. The same Exploration has the same
// Report.
type Report struct {
	// Runs that were made.
	Runs int
	// ChoicePoints are the points at which something else could have happened, or
	// gone wrong, counted once for each run that came there first.
	ChoicePoints int
	// States that were distinct.
	States int
	// Complete says that every schedule within the bounds was covered; otherwise
	// MaxRuns or a Failure has cut the exploration short.
	Complete bool
	// Failure is the first run that failed: there is none with fewer faults. It is
	// nil if there is none.
	Failure *Failure
}

// Failure is a run that failed.
type Failure struct {
	// Err says what was wrong in the end.
	Err error
	// Faults is how many things went wrong on the way.
	Faults int
	// Schedule replays the run, as Exploration.Schedule.
	Schedule string
	// Steps tell what happened, in order. The first line of each says what was
	// delivered to whom, and what went wrong; further lines what followed.
	Steps []string
}

// String returns the figures and, if there is one, the failure.
func (r Report) String() string {
	s := fmt.Sprintf("sagatest: %d runs, %d choice points, %d states", r.Runs, r.ChoicePoints, r.States)
	switch {
	case r.Failure != nil:
		return s + "\n" + r.Failure.String()
	case r.Complete:
		return s + ", all within the bounds"
	}
	return s + ", not all within the bounds"
}

// String tells what happened, and how to see it again.
func (f *Failure) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "FAILED: %v\nThe run, in which %s:\n", f.Err, wrong(f.Faults))
	b.WriteString((&trace{steps: f.Steps}).String())
	fmt.Fprintf(&b, "replay it with Exploration.Schedule: %q", f.Schedule)
	return b.String()
}

func wrong(faults int) string {
	switch faults {
	case 0:
		return "nothing went wrong"
	case 1:
		return "one thing went wrong"
	}
	return fmt.Sprintf("%d things went wrong", faults)
}
