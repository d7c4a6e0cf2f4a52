package saga_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/saga"
)

func TestValidateFindsEveryProblem(t *testing.T) {
	byID := func(e stockReserved) string { return e.OrderID }
	ok := saga.On[order](reserved, byID, nil)
	late := saga.On[order](out, func(e outOfStock) string { return e.OrderID }, nil)
	ask := saga.Send(reserve, func(order) reserveStock { return reserveStock{} })
	call := saga.Call(func(context.Context, order) (int, error) { return 0, nil }, nil)
	none := saga.NotNeeded[order]("a test")
	good := saga.Step[order]{Name: "good", Do: ask, Success: ok, Timeout: time.Minute, Compensate: none}
	with := func(change func(*saga.Step[order])) []saga.Node[order] {
		s := good
		change(&s)
		return []saga.Node[order]{s}
	}
	final := saga.State[order]{Name: "end", Final: saga.Completed}
	timer := saga.Schedule[order]("t", time.Minute)
	expire := saga.Transition[order]{Event: saga.Timeout[order]("t"), GoTo: "end"}
	states := func(all ...saga.State[order]) saga.Definition[order] {
		return saga.Definition[order]{Name: "s", Version: 1, States: append(all, final)}
	}
	steps := func(nodes ...saga.Node[order]) saga.Definition[order] {
		return saga.Definition[order]{Name: "s", Version: 1, Steps: nodes}
	}
	child := func(of saga.Definition[order]) saga.Step[order] {
		return saga.Step[order]{Name: "sub", Timeout: time.Minute, Success: saga.Succeeded[order](of, nil), Do: saga.Child(of, func(o order) order { return o })}
	}
	undone := func(s saga.Step[order], by saga.Action[order]) saga.Step[order] { s.Compensate = by; return s }
	machine := states(saga.State[order]{Name: "a", NoTimeout: true, On: []saga.Transition[order]{{Event: ok, GoTo: "end"}}})
	does := func(effects ...saga.Effect[order]) saga.Definition[order] {
		return states(saga.State[order]{Name: "a", NoTimeout: true, On: []saga.Transition[order]{{Event: ok, Do: effects, GoTo: "end"}}})
	}
	require.NoError(t, saga.Validate(steps(good)))
	require.NoError(t, saga.Validate(steps(child(steps(good)))))
	require.NoError(t, saga.Validate(steps(undone(child(machine), call))))
	require.NoError(t, saga.Validate(steps(saga.Pivot[order]{}, child(machine))))
	require.NoError(t, saga.Validate(does(saga.Anew[order]("ask"), saga.Do("ask", ask))))
	require.NoError(t, saga.Validate(states(saga.State[order]{Name: "a", On: []saga.Transition[order]{{Event: ok, Do: []saga.Effect[order]{timer}}, expire}})))

	for name, tt := range map[string]struct {
		d    saga.Untyped
		want string
	}{
		"no name":            {saga.Definition[order]{Version: 1, Steps: []saga.Node[order]{good}}, "no Name"},
		"bad name":           {saga.Definition[order]{Name: "a b", Version: 1, Steps: []saga.Node[order]{good}}, "topics' names"},
		"no version":         {saga.Definition[order]{Name: "s", Steps: []saga.Node[order]{good}}, "Version must be at least 1"},
		"nothing to do":      {steps(), "neither Steps nor States"},
		"both notations":     {saga.Definition[order]{Name: "s", Version: 1, Steps: []saga.Node[order]{good}, States: []saga.State[order]{final}}, "both Steps and States"},
		"no migration":       {saga.Definition[order]{Name: "s", Version: 1, StateVersion: 2, Steps: []saga.Node[order]{good}}, "no Migration from 1"},
		"state of no JSON":   {saga.Definition[chan int]{Name: "s", Version: 1}, "can't be stored"},
		"started by signal":  {saga.Definition[order]{Name: "s", Version: 1, StartedBy: saga.Signal[order, int]("x", nil), Steps: []saga.Node[order]{good}}, "can't start an instance"},
		"no correlation":     {steps(with(func(s *saga.Step[order]) { s.Success = saga.On[order](reserved, nil, nil) })...), "no correlation"},
		"step without name":  {steps(with(func(s *saga.Step[order]) { s.Name = "" })...), "no Name"},
		"bad step name":      {steps(with(func(s *saga.Step[order]) { s.Name = "a#b" })...), "'#' and ':'"},
		"two of a name":      {steps(good, good), `two nodes have the name "good"`},
		"nil node":           {steps(nil), "a node is nil"},
		"missing timeout":    {steps(with(func(s *saga.Step[order]) { s.Timeout = 0 })...), "no Timeout"},
		"no answer":          {steps(with(func(s *saga.Step[order]) { s.Success = saga.Event[order]{} })...), "no Success"},
		"answer to a call":   {steps(with(func(s *saga.Step[order]) { s.Do = call })...), "must be empty"},
		"no compensation":    {steps(with(func(s *saga.Step[order]) { s.Compensate = saga.Action[order]{} })...), "no Compensate"},
		"no reason":          {steps(with(func(s *saga.Step[order]) { s.Compensate = saga.NotNeeded[order]("") })...), "must say why"},
		"child undone twice": {steps(undone(child(steps(good)), call)), "compensated by its own steps"},
		"child of states":    {steps(child(machine)), "Compensate must tell it"},
		"bad name of a deed": {does(saga.Do("a#b", ask)), "'#' and ':'"},
		"nothing anew":       {does(saga.Anew[order]("x"), saga.Do("ask", ask)), `Anew("x")`},
		"two pivots":         {steps(good, saga.Pivot[order]{}, saga.Pivot[order]{}), "2 pivots"},
		"pivot within":       {steps(saga.Parallel[order]{Name: "p", Branches: []saga.Node[order]{good, saga.Pivot[order]{}}}, good), "stands within"},
		"one branch":         {steps(saga.Parallel[order]{Name: "p", Branches: []saga.Node[order]{good}}), "two at least"},
		"need too many":      {steps(saga.Parallel[order]{Name: "p", Need: 3, Branches: []saga.Node[order]{good, good}}), "Need is 3 of 2"},
		"loop without bound": {steps(saga.Loop[order]{Name: "l", Body: []saga.Node[order]{good}}), "Max must be at least 1"},
		"if without cond":    {steps(saga.If[order]{Name: "i", Then: []saga.Node[order]{good}}), "Cond is nil"},
		"same answer twice":  {steps(with(func(s *saga.Step[order]) { s.Failure = ok })...), "an answer twice"},

		"unreachable state": {states(saga.State[order]{Name: "a", NoTimeout: true, On: []saga.Transition[order]{{Event: ok, GoTo: "end"}}}, saga.State[order]{Name: "b", NoTimeout: true, On: []saga.Transition[order]{{Event: ok, GoTo: "end"}}}), `state "b" can't be reached`},
		"dead end":          {states(saga.State[order]{Name: "a", NoTimeout: true, On: []saga.Transition[order]{{Event: ok}}}), `state "a" is a dead end`},
		"state waits":       {states(saga.State[order]{Name: "a", On: []saga.Transition[order]{{Event: ok, GoTo: "end"}}}), "waits without a Timeout"},
		"goes nowhere":      {states(saga.State[order]{Name: "a", NoTimeout: true, On: []saga.Transition[order]{{Event: ok, GoTo: "x"}, {Event: late, GoTo: "end"}}}), `"x", which is no state`},
		"two transitions":   {states(saga.State[order]{Name: "a", NoTimeout: true, On: []saga.Transition[order]{{Event: ok, GoTo: "end"}, {Event: ok}}}), "two transitions"},
		"never scheduled":   {states(saga.State[order]{Name: "a", On: []saga.Transition[order]{expire}}), "never scheduled"},
		"timer unhandled":   {states(saga.State[order]{Name: "a", NoTimeout: true, On: []saga.Transition[order]{{Event: ok, Do: []saga.Effect[order]{timer}, GoTo: "end"}}}), `Timeout("t"), which is scheduled`},
		"call unhandled":    {states(saga.State[order]{Name: "a", NoTimeout: true, On: []saga.Transition[order]{{Event: ok, Do: []saga.Effect[order]{saga.Do("c", call)}, GoTo: "end"}}}), `Failed("c")`},
		"late event": {states(
			saga.State[order]{Name: "a", On: []saga.Transition[order]{{Event: ok, GoTo: "end", Do: []saga.Effect[order]{timer}}, {Event: saga.Timeout[order]("t"), GoTo: "b"}}},
			saga.State[order]{Name: "b", NoTimeout: true, On: []saga.Transition[order]{{Event: late, GoTo: "end"}}},
		), `"stock.reserved" can arrive late`},
		"small composite": {states(saga.State[order]{Name: "a", NoTimeout: true, On: []saga.Transition[order]{{Event: saga.AllOf("x", ok), GoTo: "end"}}}), "two events at least"},
		"start unhandled": {saga.Definition[order]{Name: "s", Version: 1, StartedBy: late, States: []saga.State[order]{{Name: "a", NoTimeout: true, On: []saga.Transition[order]{{Event: ok, GoTo: "end"}}}, final}}, "no state handles"},
	} {
		t.Run(name, func(t *testing.T) { require.ErrorContains(t, saga.Validate(tt.d), tt.want) })
	}
}

func TestValidateReportsAllProblemsAtOnce(t *testing.T) {
	err := saga.Validate(saga.Definition[order]{Steps: []saga.Node[order]{saga.Step[order]{}, saga.Loop[order]{}}})
	for _, want := range []string{"no Name", "Version", "no Success", "no Timeout", "While is nil"} {
		require.ErrorContains(t, err, want)
	}
}
