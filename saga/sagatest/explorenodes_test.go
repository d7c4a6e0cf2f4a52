package sagatest_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/sagatest"
)

// Every kind of node of the library itself, under every schedule.

type work struct{ Rounds int }

var (
	doWork   = eventbus.NewTopic[work]("work.do")
	undoWork = eventbus.NewTopic[work]("work.undo")
	worked   = answers("work.done")
	refused  = answers("work.refused")
	unworked = answers("work.undone")
)

// worker does and undoes the work of every step, but for those that it refuses,
// and keeps a book of what is done.
func worker(w *sagatest.World, refuses ...string) {
	p := w.Participant("worker")
	key := func(e eventbus.Event[work]) string { return instanceOf(e) + ": " + e.Metadata[saga.MetadataStep] }
	say := func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[work], what eventbus.Topic[Answer]) error {
		return what.Publish(ctx, tx, Answer{instanceOf(e)}, saga.Answering(e.Metadata))
	}
	do := func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[work]) error {
		if slices.Contains(refuses, e.Metadata[saga.MetadataStep]) {
			return say(ctx, tx, e, refused)
		}
		tx.Set(key(e), true)
		return say(ctx, tx, e, worked)
	}
	again := func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[work]) error {
		switch {
		case slices.Contains(refuses, e.Metadata[saga.MetadataStep]):
			return say(ctx, tx, e, refused)
		case sagatest.Get[bool](tx, key(e)):
			return say(ctx, tx, e, worked)
		}
		return nil
	}
	undone := func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[work]) error {
		tx.Delete(key(e))
		return say(ctx, tx, e, unworked)
	}
	sagatest.HandleAction(p, doWork, do, again)
	sagatest.HandleCompensation(p, undoWork, undone, undone)
}

func instanceOf(e eventbus.Event[work]) string { return e.Metadata[saga.MetadataInstance] }

func copyOf(s work) work { return s }

func workAnswer(topic eventbus.Topic[Answer]) saga.Event[work] {
	return saga.On[work](topic, byOrder, nil).IfMissing(saga.Ignore) // of another saga that shares the worker
}

func does(name string) saga.Step[work] {
	return saga.Step[work]{
		Name: name,
		Do:   saga.Send(doWork, copyOf), Success: workAnswer(worked), Failure: workAnswer(refused), Timeout: time.Minute,
		Compensate: saga.Send(undoWork, copyOf), Compensated: workAnswer(unworked),
	}
}

// calls does the work by calls.
func calls(w *sagatest.World, name string, fails bool) saga.Step[work] {
	return saga.Step[work]{
		Name: name,
		Do: saga.Call(func(ctx context.Context, _ work) (int, error) {
			if fails {
				return 0, eventbus.Permanent(errors.New("it is refused"))
			}
			return 1, w.Participant("called").Do(ctx, func(tx *sagatest.Tx) error { tx.Set(saga.KeyOf(ctx), true); return nil })
		}, func(s *work, n int) { s.Rounds += n }),
		Timeout: time.Minute,
		Compensate: saga.Call(func(ctx context.Context, _ work) (struct{}, error) {
			return struct{}{}, w.Participant("called").Do(ctx, func(tx *sagatest.Tx) error {
				tx.Delete(strings.Replace(saga.KeyOf(ctx), "undo:", "", 1))
				return nil
			})
		}, nil),
	}
}

// nodes is a saga and what the participants' books must have when it has
// completed; nothing if it was compensated.
type nodes struct {
	definitions func(w *sagatest.World) []saga.Untyped
	refuses     []string
	act         func(ctx context.Context, o *saga.Orchestrator) error
	faults      int // in total; 0: one
	done        []string
	loose       bool // in any order, and more than that
	status      saga.Status
}

func steps(nodes ...saga.Node[work]) func(w *sagatest.World) []saga.Untyped {
	return func(*sagatest.World) []saga.Untyped { return []saga.Untyped{named("nodes", nodes...)} }
}

func named(name string, nodes ...saga.Node[work]) saga.Definition[work] {
	return saga.Definition[work]{Name: name, Version: 1, Steps: nodes}
}

var afterPivot = saga.Step[work]{Name: "c", Do: saga.Send(doWork, copyOf), Success: workAnswer(worked), Timeout: time.Minute}

var child = named("child", does("x"))

func withChild(after saga.Node[work]) func(*sagatest.World) []saga.Untyped {
	return func(*sagatest.World) []saga.Untyped {
		return []saga.Untyped{child, named("nodes",
			saga.Step[work]{
				Name: "run child", Do: saga.Child(child, copyOf), Success: saga.Succeeded[work](child, nil), Timeout: time.Hour,
			}, after)}
	}
}

// ifPossible lets an operator's act come too early or too late.
func ifPossible(act func(o *saga.Orchestrator, ctx context.Context, name, id, reason string) error) func(context.Context, *saga.Orchestrator) error {
	return func(ctx context.Context, o *saga.Orchestrator) error {
		if err := act(o, ctx, "nodes", "1", "a customer"); !errors.Is(err, saga.ErrNotPossible) && !errors.Is(err, saga.ErrNoInstance) {
			return err
		}
		return nil
	}
}

var cancel, compensate = ifPossible((*saga.Orchestrator).Cancel), ifPossible((*saga.Orchestrator).Compensate)

var allNodes = map[string]nodes{
	"sequence":          {definitions: steps(does("a"), does("b")), done: []string{"1: a", "1: b"}},
	"failure":           {definitions: steps(does("a"), does("b")), refuses: []string{"b"}, status: saga.Compensated},
	"pivot":             {definitions: steps(does("a"), saga.Pivot[work]{}, afterPivot), done: []string{"1: a", "1: c"}},
	"parallel":          {definitions: steps(saga.Parallel[work]{Name: "p", Branches: []saga.Node[work]{does("a"), does("b")}}), done: []string{"1: a", "1: b"}},
	"parallel failure":  {definitions: steps(saga.Parallel[work]{Name: "p", Branches: []saga.Node[work]{does("a"), does("b")}}), refuses: []string{"b"}, status: saga.Compensated},
	"any":               {definitions: steps(saga.Parallel[work]{Name: "p", Need: saga.Any, Branches: []saga.Node[work]{does("a"), does("b")}}, does("c")), loose: true, done: []string{"1: c"}},
	"any, then failure": {definitions: steps(saga.Parallel[work]{Name: "p", Need: saga.Any, Branches: []saga.Node[work]{does("a"), does("b")}}, does("c")), refuses: []string{"c"}, status: saga.Compensated},
	"if": {definitions: steps(saga.If[work]{
		Name: "i", Cond: func(s work) bool { return s.Rounds == 0 }, Then: []saga.Node[work]{does("a")}, Else: []saga.Node[work]{does("b")},
	}), done: []string{"1: a"}},
	"loop": {definitions: func(w *sagatest.World) []saga.Untyped {
		return []saga.Untyped{named("nodes", saga.Loop[work]{
			Name: "l", Max: 2, While: func(s work) bool { return s.Rounds < 2 }, Body: []saga.Node[work]{does("a"), calls(w, "k", false)},
		})}
	}, done: []string{"1: a#1", "1: a#2", "nodes/1/k#1", "nodes/1/k#2"}},
	"calls": {definitions: func(w *sagatest.World) []saga.Untyped {
		return []saga.Untyped{named("nodes", calls(w, "j", false), does("a"), calls(w, "k", false))}
	}, done: []string{"1: a", "nodes/1/j", "nodes/1/k"}},
	"failing call": {definitions: func(w *sagatest.World) []saga.Untyped {
		return []saga.Untyped{named("nodes", does("a"), calls(w, "j", false), calls(w, "k", true))}
	}, status: saga.Compensated},
	"parallel calls": {definitions: func(w *sagatest.World) []saga.Untyped {
		return []saga.Untyped{named("nodes", saga.Parallel[work]{Name: "p", Branches: []saga.Node[work]{calls(w, "j", false), calls(w, "k", false)}}, does("a"))}
	}, refuses: []string{"a"}, status: saga.Compensated},
	"child":               {definitions: withChild(does("b")), done: []string{"1/run child: x", "1: b"}},
	"child, then failure": {definitions: withChild(does("b")), refuses: []string{"b"}, status: saga.Compensated},
	"failing child":       {definitions: withChild(does("b")), refuses: []string{"x"}, status: saga.Compensated},
	"cancelled":           {definitions: steps(does("a"), does("b")), act: cancel, loose: true},
	"cancelled with a call": {definitions: func(w *sagatest.World) []saga.Untyped {
		return []saga.Untyped{named("nodes", does("a"), calls(w, "k", false), does("b"))}
	}, act: cancel, loose: true},
	"compensated, maybe after the end": {definitions: func(w *sagatest.World) []saga.Untyped {
		return []saga.Untyped{named("nodes", calls(w, "j", false), does("a"), calls(w, "k", false))}
	}, act: compensate, loose: true},
	"in order": {definitions: func(w *sagatest.World) []saga.Untyped {
		d := named("nodes", does("a"), calls(w, "k", false), does("b"))
		d.CompensateInOrder = true
		return []saga.Untyped{d}
	}, refuses: []string{"b"}, status: saga.Compensated},
	"cancelled while it waits": {definitions: func(w *sagatest.World) []saga.Untyped {
		return []saga.Untyped{named("nodes", calls(w, "k", false), saga.Step[work]{Name: "wait", Success: workAnswer(worked), Timeout: time.Hour})}
	}, act: cancel, status: saga.Compensated},
	"cancelled child": {definitions: withChild(does("b")), act: cancel, loose: true, faults: -1},
}

// large are those that have thousands of schedules.
var large = []string{"any", "any, then failure", "child", "child, then failure", "cancelled", "cancelled with a call", "cancelled child"}

func (n nodes) exploration() sagatest.Exploration {
	return sagatest.Exploration{
		Setup: func(w *sagatest.World) {
			w.Orchestrate(n.definitions(w)...)
			worker(w, n.refuses...)
			if err := saga.Start(context.Background(), w, named("nodes"), "1", work{}); err != nil {
				panic(err)
			}
			if n.act != nil {
				w.Act("cancel", n.act)
			}
		},
		Invariant: n.check,
		Faults:    sagatest.Faults{Total: cmp.Or(n.faults, 1)},
	}
}

func (n nodes) check(w *sagatest.World) error {
	i, ok := w.Instance("1")
	book := append(w.Participant("worker").Keys(), w.Participant("called").Keys()...)
	slices.Sort(book)
	if !ok {
		return errors.New("there is no instance")
	}
	switch want := n.done; {
	case i.Status == saga.Compensated && len(book) > 0:
		return fmt.Errorf("compensated, and %q are done", book)
	case n.status == saga.Compensated && i.Status != saga.Compensated:
		return fmt.Errorf("the instance is %s", i.Status)
	case i.Status == saga.Completed && !n.loose && !slices.Equal(book, want):
		return fmt.Errorf("completed, and %q are done", book)
	}
	return nil
}

func TestEveryKindOfNodeUnderEverySchedule(t *testing.T) {
	for name, n := range allNodes {
		t.Run(name, func(t *testing.T) {
			e := n.exploration()
			if raced && slices.Contains(large, name) {
				e.Faults.Total = -1
			}
			r := sagatest.Explore(t, e)
			require.True(t, r.Complete)
		})
	}
}

// Two orchestrators that take turns remember what the other has changed since.
func TestProcessesThatTakeTurns(t *testing.T) {
	for name, n := range allNodes {
		t.Run(name, func(t *testing.T) {
			e := n.exploration()
			if raced {
				e.Faults.Total = -1
			}
			sagatest.Explore(t, sagatest.Alternate(e))
		})
	}
}
