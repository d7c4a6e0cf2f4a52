// Package outboxcrash fails and kills programs at each of their statements and
// publishes, before and after these take effect: the relay of an outbox, a
// consumer with an inbox, and one with a leased store. What they have brought
// about in the end must be what it is when nothing happens.
//
// The short form is part of every run of the tests and visits a sample on
// servers; MILLRACE_OUTBOX=full visits everything.
package outboxcrash

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/internal/faultdb"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func full() bool { return os.Getenv("MILLRACE_OUTBOX") == "full" }

// point is the nth execution of an operation. Statements are told apart by their
// text, so that a point is the same in every run whatever goes on beside it.
type point struct {
	op  string
	nth int
}

var faults = []faultdb.Fault{faultdb.FailBefore, faultdb.FailAfter, faultdb.KillBefore, faultdb.KillAfter}

// trigger counts operations, and has a fault happen at one point.
type trigger struct {
	at    point
	fault faultdb.Fault

	mu    sync.Mutex
	seen  map[string]int
	order []string // of the first executions
	fired bool
}

func newTrigger(at point, fault faultdb.Fault) *trigger {
	return &trigger{at: at, fault: fault, seen: map[string]int{}}
}

func (g *trigger) decide(op string) faultdb.Fault {
	op = canonical(op)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seen[op]++; g.seen[op] == 1 {
		g.order = append(g.order, op)
	}
	if g.fired || g.at != (point{op, g.seen[op]}) {
		return faultdb.None
	}
	g.fired = true
	return g.fault
}

var (
	numbers = regexp.MustCompile(`\d+`)
	lists   = regexp.MustCompile(`-?#([,{} ]*#)+`)
	blanks  = regexp.MustCompile(`\s+`)
	spanned = regexp.MustCompile(`( OR position (IN \([-#]*\)|BETWEEN # AND #))+`)
)

// canonical takes out of a statement what differs from run to run.
func canonical(op string) string {
	op = blanks.ReplaceAllString(numbers.ReplaceAllString(op, "#"), " ")
	return spanned.ReplaceAllString(lists.ReplaceAllString(op, "#"), " OR it was missing")
}

// points returns what was counted: at most so many executions of one operation,
// for one that is repeated until there is something to do is executed any number
// of times.
func (g *trigger) points(most int) (all []point) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for nth := range most {
		for _, op := range g.order {
			if nth < g.seen[op] {
				all = append(all, point{op, nth + 1})
			}
		}
	}
	return all
}

// place is the databases in which runs take place.
type place struct {
	t    *testing.T
	db   testdb.DB
	runs atomic.Int64
}

// each runs test for each database.
func each(t *testing.T, test func(t *testing.T, p *place)) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) { test(t, &place{t: t, db: db}) })
}

// form says which points are visited: the first executions of each operation, as
// many as repeated says, and of these points every sample-th.
type form struct{ repeated, sample int }

var everything = form{12, 1}

// shortened is the form for scenarios that take their time.
func (p *place) shortened() form {
	switch {
	case full():
		return everything
	case p.db.Dialect == outbox.SQLite:
		return form{1, 1}
	}
	return form{1, 7}
}

// quick is the form for those that don't, and repeat nothing by themselves.
func (p *place) quick() form {
	if full() || p.db.Dialect == outbox.SQLite {
		return everything
	}
	return form{12, 7}
}

// at a time, for most of a run is waiting for a lease to end.
const sideBySide = 16

// visit plays a scenario undisturbed, and then once for every fault at every
// point of the form, and compares how they end.
func visit[S any](t *testing.T, f form, play func(g *trigger) (S, error)) {
	t.Helper()
	quiet := newTrigger(point{}, faultdb.None)
	want, err := play(quiet)
	require.NoError(t, err)
	points := quiet.points(f.repeated)
	jobs := f.choose(points)
	next := make(chan *trigger)
	var wg sync.WaitGroup
	for range sideBySide {
		wg.Go(func() {
			for g := range next {
				got, err := play(g)
				switch {
				case err != nil:
					t.Errorf("%v: %v", g, err)
				case !reflect.DeepEqual(want, got):
					t.Errorf("%v: it ends with\n%+v\ninstead of\n%+v", g, got, want)
				}
			}
		})
	}
	for _, g := range jobs {
		next <- g
	}
	close(next)
	wg.Wait()
	report(t, len(quiet.order), len(points), jobs)
}

// choose makes sure that every operation meets a fault.
func (f form) choose(points []point) (jobs []*trigger) {
	for i, p := range points {
		for j, fault := range faults {
			if (i+j)%f.sample == 0 || p.nth == 1 && (i+j)%len(faults) == 0 {
				jobs = append(jobs, newTrigger(p, fault))
			}
		}
	}
	return jobs
}

func (g *trigger) String() string {
	return fmt.Sprintf("%v, %s (time %d)", g.fault, cut(g.at.op, 200), g.at.nth)
}

func cut(s string, n int) string { return s[:min(n, len(s))] }

func report(t *testing.T, operations, points int, jobs []*trigger) {
	t.Helper()
	visited := map[faultdb.Fault]int{}
	var unseen []string
	for _, g := range jobs {
		if g.fired {
			visited[g.fault]++
		} else {
			unseen = append(unseen, g.String())
		}
	}
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, ", %d %v", visited[f], f)
	}
	t.Logf("%d different operations at %d points; visited %d%s; %d did not come up again", operations, points, len(jobs)-len(unseen), b.String(), len(unseen))
	require.Less(t, len(unseen), max(3, len(jobs)/4), "points that did not come up: %q", unseen[:min(5, len(unseen))])
	require.False(t, slices.ContainsFunc(faults, func(f faultdb.Fault) bool { return visited[f] == 0 }))
}
