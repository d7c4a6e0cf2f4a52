package sagatest_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/sagatest"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

func TestSeedsAndMaxRuns(t *testing.T) {
	e := explored(inSteps, shop{})
	e.MaxRuns = 50
	reports := map[uint64]sagatest.Report{}
	for _, seed := range []uint64{0, 1, 2} {
		e.Seed = seed
		reports[seed] = sagatest.Check(e)
		require.Nil(t, reports[seed].Failure)
		require.Equal(t, 50, reports[seed].Runs)
		require.False(t, reports[seed].Complete)
		require.Contains(t, reports[seed].String(), "not all within the bounds")
		require.Equal(t, reports[seed], sagatest.Check(e), "seed %d", seed)
	}
	require.NotEqual(t, reports[1].States, reports[2].States, "another seed sees others")

	e.MaxRuns, e.Faults.Total = 0, 1
	whole := sagatest.Check(e)
	e.Seed = 0
	require.True(t, whole.Complete)
	require.Equal(t, sagatest.Check(e).States, whole.States, "in the end all see the same")
}

func TestSchedulesThatCanNotBeFollowed(t *testing.T) {
	for schedule, want := range map[string]string{
		"x":       "is not the schedule of a failure",
		"3=1 3=2": "is not the schedule of a failure",
		" ":       "is blank",
		"0=77":    "takes option 77 of",
		"9999=1":  "ended before its schedule",
		"fifo":    "",
	} {
		e := explored(inSteps, shop{})
		e.Schedule = schedule
		r := sagatest.Check(e)
		if want == "" {
			require.Nil(t, r.Failure)
			continue
		}
		require.NotNil(t, r.Failure, schedule)
		require.ErrorContains(t, r.Failure.Err, want)
	}
}

func TestWhatFailsAnExploration(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(e *sagatest.Exploration)
		want   string
	}{
		"no setup": {func(e *sagatest.Exploration) { e.Setup = nil }, "Setup is nil"},
		"definition": {func(e *sagatest.Exploration) {
			e.Setup = func(w *sagatest.World) { w.Orchestrate(saga.Definition[Order]{}) }
		}, "it has no Name"},
		"panic":    {func(e *sagatest.Exploration) { e.Setup = func(*sagatest.World) { panic("broken") } }, "panic: broken"},
		"too long": {func(e *sagatest.Exploration) { e.MaxSteps = 3 }, "has not ended after 3 steps"},
		"invariant": {func(e *sagatest.Exploration) {
			e.Invariant = func(*sagatest.World) error { return errors.New("wrong") }
		}, "wrong"},
		"always": {func(e *sagatest.Exploration) {
			e.Always = func(w *sagatest.World) error {
				if len(w.Participant("payments").Keys()) > 0 {
					return errors.New("something was charged")
				}
				return nil
			}
		}, "something was charged"},
		"memory": {func(e *sagatest.Exploration) {
			n := 0
			e.Invariant = func(*sagatest.World) error {
				if n++; n == 1 {
					return errors.New("the first")
				}
				return nil
			}
		}, "something is remembered outside of the world"},
	} {
		t.Run(name, func(t *testing.T) {
			e := explored(inSteps, shop{})
			tt.change(&e)
			r := sagatest.Check(e)
			require.NotNil(t, r.Failure)
			require.ErrorContains(t, r.Failure.Err, tt.want)
		})
	}
}

// A kind of fault that is excluded does not happen.
func TestFaultsAreBounded(t *testing.T) {
	bug := seeded["a timeout is missing"] // it takes a loss
	e := explored(bug.definition, bug.shop)
	e.Faults = sagatest.Faults{Total: 1, Losses: -1}
	require.Nil(t, sagatest.Check(e).Failure)
	e.Faults = sagatest.Faults{Total: 1, Crashes: -1, Duplicates: -1, Overtakings: -1, Timeouts: -1, Races: -1}
	require.NotNil(t, sagatest.Check(e).Failure)
	e.Faults = sagatest.Faults{Total: -1}
	require.Nil(t, sagatest.Check(e).Failure)

	// Without duplicates it is a crash that has a command delivered again.
	twice := seeded["a participant charges twice"]
	e = explored(twice.definition, twice.shop)
	setup := e.Setup
	e.Setup = func(w *sagatest.World) { setup(w); twice.participants(w) }
	e.Faults = sagatest.Faults{Total: 1, Duplicates: -1, Losses: -1, Timeouts: -1}
	r := sagatest.Check(e)
	require.NotNil(t, r.Failure)
	require.Contains(t, r.String(), "FAULT: the process crashes after its commit")
}

// What may be accepted in the end.
func TestStuckAndDeadLettersMayBeAllowed(t *testing.T) {
	stuck := seeded["a compensation fails for ever"]
	e := explored(stuck.definition, stuck.shop)
	e.AllowStuck, e.Faults.Total = true, -1
	e.Invariant = func(w *sagatest.World) error {
		if i, ok := w.Instance("o-1"); !ok || i.Status != saga.Stuck {
			return errors.New("it is not stuck")
		}
		return nil
	}
	require.Nil(t, sagatest.Check(e).Failure)

	wrong := seeded["the correlation is wrong"]
	e = explored(wrong.definition, wrong.shop)
	e.AllowDeadLetters, e.Faults.Total = true, -1
	require.Nil(t, sagatest.Check(e).Failure, "it is compensated in the end")
}

func TestExploreIsNotForBubbles(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		require.ErrorContains(t, sagatest.Check(explored(inSteps, shop{})).Failure.Err, "each run is in a bubble of its own")
	})
}

// Two orders of one customer, of which the later one must be the last to arrive.
func TestOvertaking(t *testing.T) {
	e := sagatest.Exploration{
		Setup: func(w *sagatest.World) {
			p := w.Participant("p")
			sagatest.HandleOnce(p, Placed, func(_ context.Context, tx *sagatest.Tx, e eventbus.Event[OrderPlaced]) error {
				tx.Set("last", e.Data.Total)
				return nil
			})
			for _, n := range []int{1, 2} {
				sagatest.Publish(w, Placed, OrderPlaced{"o-1", n})
			}
		},
		Invariant: func(w *sagatest.World) error {
			if sagatest.Get[int](w.Participant("p"), "last") != 2 {
				return errors.New("the first order was the last")
			}
			return nil
		},
		Faults: sagatest.Faults{Total: 1, Overtakings: -1},
	}
	require.Nil(t, sagatest.Check(e).Failure)
	e.Faults = sagatest.Faults{Total: 1}
	r := sagatest.Check(e)
	require.NotNil(t, r.Failure)
	require.Contains(t, r.String(), "FAULT: it overtakes an earlier one of its key")
}

// While a call is made another process cancels the instance.
func TestRaces(t *testing.T) {
	e := allNodes["cancelled with a call"].exploration()
	e.Always = func(w *sagatest.World) error { // the history is no part of the state that Invariant is about
		history, err := w.Orchestrator().History(context.Background(), "nodes", "1")
		event := func(name string) int {
			return slices.IndexFunc(history, func(e saga.Entry) bool { return e.Event == name })
		}
		if cancelled := event("cancel"); err == nil && cancelled > 0 && event("call:k") > cancelled {
			return errors.New("the call has returned after the instance was cancelled")
		}
		return err
	}
	e.Faults = sagatest.Faults{Total: 1, Crashes: -1, Races: -1}
	require.Nil(t, sagatest.Check(e).Failure)
	e.Faults = sagatest.Faults{Total: 1, Crashes: -1}
	r := sagatest.Check(e)
	require.NotNil(t, r.Failure)
	require.Contains(t, r.String(), "another process handles cancel -> orchestrator")
	require.Contains(t, r.String(), "the commit is refused: "+saga.ErrConflict.Error())
}

// Calls that are made side by side publish in no order of their own.
func TestCallsSideBySideHaveOneReport(t *testing.T) {
	call := func(w *sagatest.World, name string) saga.Step[work] {
		return saga.Step[work]{Name: name, Timeout: 1e9, Compensate: saga.NotNeeded[work]("a test"), Do: saga.Call(func(ctx context.Context, _ work) (int, error) {
			return 0, w.Participant("p").Do(ctx, func(tx *sagatest.Tx) error {
				tx.Set(name, true)
				return Taken.Publish(ctx, tx, Answer{name})
			})
		}, nil)}
	}
	e := sagatest.Exploration{
		Setup: func(w *sagatest.World) {
			d := named("nodes", saga.Parallel[work]{Name: "all", Branches: []saga.Node[work]{call(w, "a"), call(w, "b"), call(w, "c")}})
			w.Orchestrate(d)
			_ = saga.Start(context.Background(), w, d, "1", work{})
		},
		Invariant: func(*sagatest.World) error { return errors.New("for the report") },
	}
	first := sagatest.Check(e)
	require.Contains(t, first.String(), "p: a = true\n    sent: payments.taken\n    p: b = true\n    sent: payments.taken\n    p: c = true")
	for range 50 {
		require.Equal(t, first, sagatest.Check(e))
	}
}

// Several instances at once.
func TestTwoOrders(t *testing.T) {
	e := explored(inSteps, shop{remote: true})
	setup := e.Setup
	e.Setup = func(w *sagatest.World) {
		setup(w)
		sagatest.Publish(w, Placed, OrderPlaced{"o-2", 7})
	}
	e.Faults.Total = -1
	r := sagatest.Explore(t, e)
	require.True(t, r.Complete)
}
