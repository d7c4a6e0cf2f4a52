package saga_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

// trace is a state that records what was done.
type trace struct {
	Did   []string
	Count int
	Yes   bool
}

// does is a step that calls a function, which records itself and its undoing in
// log.
func does(name string, log *[]string, err func() error) saga.Step[trace] {
	record := func(what string, err func() error) saga.Action[trace] {
		return saga.Call(func(context.Context, trace) (string, error) {
			if err != nil {
				if e := err(); e != nil {
					return "", e
				}
			}
			*log = append(*log, what)
			return what, nil
		}, func(s *trace, what string) { s.Did = append(s.Did, what); s.Count++ })
	}
	return saga.Step[trace]{Name: name, Do: record(name, err), Timeout: time.Minute, Compensate: record("undo "+name, nil)}
}

func fails(err error) func() error { return func() error { return err } }

// failsFirst fails n times.
func failsFirst(n int, err error) func() error {
	return func() error {
		if n--; n >= 0 {
			return err
		}
		return nil
	}
}

var (
	errRefused = eventbus.Permanent(errors.New("refused"))
	errDown    = errors.New("down")
)

func sagaOf(nodes ...saga.Node[trace]) saga.Definition[trace] {
	return saga.Definition[trace]{Name: "s", Version: 1, Steps: nodes}
}

func TestShapes(t *testing.T) {
	var log []string
	ok := func(name string) saga.Step[trace] { return does(name, &log, nil) }
	bad := func(name string) saga.Step[trace] { return does(name, &log, fails(errRefused)) }
	retried := func(s saga.Step[trace], attempts int) saga.Step[trace] {
		s.Retry = saga.Retry{Attempts: attempts}
		return s
	}
	type N = saga.Node[trace]
	for name, tt := range map[string]struct {
		nodes []N
		want  saga.Status
		log   []string
	}{
		"sequence":                      {[]N{ok("a"), ok("b")}, saga.Completed, []string{"a", "b"}},
		"compensated in reverse":        {[]N{ok("a"), ok("b"), bad("c")}, saga.Compensated, []string{"a", "b", "undo b", "undo a"}},
		"retried":                       {[]N{retried(does("a", &log, failsFirst(2, errDown)), 3)}, saga.Completed, []string{"a"}},
		"unknown is compensated":        {[]N{ok("a"), retried(does("b", &log, fails(errDown)), 2)}, saga.Compensated, []string{"a", "undo b", "undo a"}},
		"past the pivot it goes on":     {[]N{ok("a"), saga.Pivot[trace]{}, does("b", &log, failsFirst(5, errRefused))}, saga.Completed, []string{"a", "b"}},
		"past the pivot it gets stuck":  {[]N{ok("a"), saga.Pivot[trace]{}, bad("b")}, saga.Stuck, []string{"a"}},
		"left out":                      {[]N{saga.Step[trace]{Name: "a", When: func(s trace) bool { return s.Yes }, Do: ok("a").Do, Timeout: 1, Compensate: ok("a").Compensate}, ok("b")}, saga.Completed, []string{"b"}},
		"if":                            {[]N{saga.If[trace]{Name: "i", Cond: func(s trace) bool { return !s.Yes }, Then: []N{ok("a")}, Else: []N{ok("b")}}}, saga.Completed, []string{"a"}},
		"else":                          {[]N{saga.If[trace]{Name: "i", Cond: func(s trace) bool { return s.Yes }, Then: []N{ok("a")}, Else: []N{ok("b")}}}, saga.Completed, []string{"b"}},
		"the condition is asked once":   {[]N{saga.If[trace]{Name: "i", Cond: func(s trace) bool { return s.Count == 0 }, Then: []N{ok("a"), ok("b")}, Else: []N{ok("c")}}}, saga.Completed, []string{"a", "b"}},
		"loop":                          {[]N{saga.Loop[trace]{Name: "l", Max: 5, While: func(s trace) bool { return s.Count < 3 }, Body: []N{ok("a")}}}, saga.Completed, []string{"a", "a", "a"}},
		"rounds are compensated":        {[]N{saga.Loop[trace]{Name: "l", Max: 2, While: func(s trace) bool { return s.Count < 2 }, Body: []N{ok("a")}}, bad("b")}, saga.Compensated, []string{"a", "a", "undo a", "undo a"}},
		"loops are bounded":             {[]N{saga.Loop[trace]{Name: "l", Max: 2, While: func(trace) bool { return true }, Body: []N{ok("a")}}}, saga.Compensated, []string{"a", "a", "undo a", "undo a"}},
		"loop that is never entered":    {[]N{saga.Loop[trace]{Name: "l", Max: 2, While: func(trace) bool { return false }, Body: []N{ok("a")}}, ok("b")}, saga.Completed, []string{"b"}},
		"one of the branches fails":     {[]N{saga.Parallel[trace]{Name: "p", Branches: []N{bad("a"), bad("b")}}}, saga.Compensated, nil},
		"any branch is enough":          {[]N{saga.Parallel[trace]{Name: "p", Need: saga.Any, Branches: []N{bad("a"), ok("b")}}, ok("c")}, saga.Completed, []string{"b", "c"}},
		"not enough of the branches":    {[]N{saga.Parallel[trace]{Name: "p", Need: 2, Branches: []N{bad("a"), bad("b"), ok("c")}}}, saga.Compensated, []string{"c", "undo c"}},
		"branches of several steps":     {[]N{saga.Parallel[trace]{Name: "p", Branches: []N{saga.Sequence[trace]{ok("a"), ok("b")}, saga.Sequence[trace]{bad("c"), ok("d")}}}}, saga.Compensated, []string{"a", "undo a"}},
		"compensation that fails first": {[]N{saga.Step[trace]{Name: "a", Do: ok("a").Do, Timeout: time.Minute, Compensate: does("undo", &log, failsFirst(3, errDown)).Do}, bad("b")}, saga.Compensated, []string{"a", "undo"}},
		"compensation that fails":       {[]N{saga.Step[trace]{Name: "a", Do: ok("a").Do, Timeout: time.Minute, Compensate: does("undo", &log, fails(errDown)).Do}, bad("b")}, saga.Stuck, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log = nil
				r := newRig(t, sagaOf(tt.nodes...)).start()
				_, err := saga.Execute(t.Context(), r.o, sagaOf(tt.nodes...), "1", trace{})
				require.NoError(t, err)
				r.pass(24 * time.Hour)
				r.requireStatus(tt.want, "s", "1")
				require.Equal(t, tt.log, log)
			})
		})
	}
}

func TestStuckInstanceIsMendedByAnOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		broken := errDown
		d := sagaOf(does("a", &log, nil), saga.Pivot[trace]{}, does("b", &log, func() error { return broken }), does("c", &log, func() error { return broken }))
		r := newRig(t, d)
		var alerts []saga.StuckAlert
		eventbus.Subscribe(r.parts, saga.StuckAlerts("s"), func(_ context.Context, e eventbus.Event[saga.StuckAlert]) error {
			alerts = append(alerts, e.Data)
			return nil
		})
		r.start()
		_, err := saga.Execute(t.Context(), r.o, d, "1", trace{})
		require.NoError(t, err)
		r.pass(24 * time.Hour)
		r.requireStatus(saga.Stuck, "s", "1")
		require.Len(t, alerts, 1)
		require.Contains(t, alerts[0].Reason, `step "b" failed 10 times`)

		stuck, err := r.o.List(t.Context(), saga.Query{Saga: "s", Status: []saga.Status{saga.Stuck}})
		require.NoError(t, err)
		require.Len(t, stuck, 1)

		require.ErrorIs(t, r.o.Cancel(t.Context(), "s", "1", "no"), saga.ErrNotPossible)
		require.ErrorIs(t, r.o.Skip(t.Context(), "s", "1", "x"), saga.ErrNotPossible)
		require.NoError(t, r.o.Skip(t.Context(), "s", "1", "b"))
		r.pass(24 * time.Hour)
		r.requireStatus(saga.Stuck, "s", "1")
		broken = nil
		require.NoError(t, r.o.Retry(t.Context(), "s", "1"))
		r.pass(time.Hour)
		r.requireStatus(saga.Completed, "s", "1")
		require.Equal(t, []string{"a", "c"}, log)
		require.Len(t, alerts, 2)
		require.ErrorIs(t, r.o.Retry(t.Context(), "s", "1"), saga.ErrNotPossible)
	})
}

func TestOperatorCompensatesWhatHasCompleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		d := sagaOf(does("a", &log, nil), saga.Pivot[trace]{}, does("b", &log, nil))
		r := newRig(t, d).start()
		_, err := saga.Execute(t.Context(), r.o, d, "1", trace{})
		require.NoError(t, err)
		r.requireStatus(saga.Completed, "s", "1")
		require.NoError(t, r.o.Compensate(t.Context(), "s", "1", "the customer has changed her mind"))
		r.requireStatus(saga.Compensated, "s", "1")
		require.Equal(t, []string{"a", "b", "undo b", "undo a"}, log)
		require.ErrorIs(t, r.o.Compensate(t.Context(), "s", "1", "again"), saga.ErrNotPossible)
	})
}

func TestExecuteRefusesASecondInstanceOfAnID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		d := sagaOf(does("a", &log, nil))
		r := newRig(t, d)
		_, err := saga.Execute(t.Context(), r.o, d, "1", trace{})
		require.NoError(t, err)
		_, err = saga.Execute(t.Context(), r.o, d, "1", trace{})
		require.ErrorIs(t, err, saga.ErrExists)
		_, err = r.o.Get(t.Context(), "s", "2")
		require.ErrorIs(t, err, saga.ErrNoInstance)
	})
}

func TestKeyOfACallIsTheSameForAllAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keys []string
		do := func(attempts int) saga.Action[trace] {
			return saga.Call(func(ctx context.Context, _ trace) (int, error) {
				keys = append(keys, saga.KeyOf(ctx))
				if attempts--; attempts > 0 {
					return 0, errDown
				}
				return 0, nil
			}, nil)
		}
		var log []string
		d := sagaOf(saga.Step[trace]{Name: "pay", Do: do(2), Timeout: time.Minute, Retry: saga.Retry{Attempts: 2}, Compensate: do(1)}, does("x", &log, fails(errRefused)))
		r := newRig(t, d).start()
		_, err := saga.Execute(t.Context(), r.o, d, "1", trace{})
		require.NoError(t, err)
		r.pass(time.Hour)
		r.requireStatus(saga.Compensated, "s", "1")
		require.Equal(t, []string{"s/1/pay", "s/1/pay", "s/1/undo:pay"}, keys)
	})
}

func TestPanicOfTheDefinitionMakesTheInstanceStuckAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		d := fulfilment(func(context.Context, order) (string, error) { return "p", nil })
		step := d.Steps[0].(saga.Step[order])
		step.Success = saga.On(reserved, func(e stockReserved) string { return e.OrderID }, func(o *order, _ stockReserved) {
			if broken {
				panic("nil pointer, say")
			}
			o.Stock = true
		})
		d.Steps[0] = step
		r := newRig(t, d)
		on(r, reserve, func(ctx context.Context, id string, _ eventbus.Event[reserveStock]) error {
			return reserved.Publish(ctx, r.h.Bus(), stockReserved{id})
		})
		r.start()
		require.NoError(t, placed.Publish(t.Context(), r.h.Bus(), orderPlaced{"1", 7}))
		r.pass(time.Hour)
		i := r.requireStatus(saga.Stuck, "fulfilment", "1")
		require.Contains(t, i.Error, "nil pointer, say")
		broken = false
		require.NoError(t, r.o.Retry(t.Context(), "fulfilment", "1"))
		r.pass(time.Hour)
		r.requireStatus(saga.Completed, "fulfilment", "1")
		require.True(t, state(r, d, "1").Stock, "the event was kept")
	})
}

func TestCallsOfParallelBranchesRunSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var branches []saga.Node[trace]
		for i := range 5 {
			slow := saga.Call(func(ctx context.Context, _ trace) (int, error) { time.Sleep(time.Second); return i, nil }, func(s *trace, i int) { s.Count += i })
			branches = append(branches, saga.Step[trace]{Name: fmt.Sprint("b", i), Do: slow, Timeout: time.Minute, Compensate: saga.NotNeeded[trace]("a test")})
		}
		d := sagaOf(saga.Parallel[trace]{Name: "p", Branches: branches})
		r := newRig(t, d)
		begun := time.Now()
		_, err := saga.Execute(t.Context(), r.o, d, "1", trace{})
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(begun))
		require.Equal(t, 10, state(r, d, "1").Count)
	})
}
