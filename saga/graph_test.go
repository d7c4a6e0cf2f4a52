package saga_test

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/saga"
)

var updateGoldens = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *updateGoldens {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run with -update to write it")
	require.Equal(t, string(want), got)
}

// everything has each kind of node.
func everything() saga.Definition[trace] {
	var log []string
	step := func(name string) saga.Step[trace] { return does(name, &log, nil) }
	type N = []saga.Node[trace]
	left := step("optional")
	left.When = func(s trace) bool { return s.Yes }
	child := sagaOf(step("inner"))
	child.Name = "child"
	return sagaOf(
		step("first"),
		left,
		saga.Parallel[trace]{Name: "quotes", Need: 2, Branches: N{step("x"), saga.Sequence[trace]{step("y1"), step("y2")}, step("z")}},
		saga.If[trace]{Name: "rich?", Cond: func(s trace) bool { return s.Yes }, Then: N{step("gold")}, Else: N{step("tin")}},
		saga.Loop[trace]{Name: "until enough", Max: 3, While: func(s trace) bool { return s.Count < 3 }, Body: N{step("more")}},
		saga.Step[trace]{Name: "approval", Success: saga.Signal[trace, int]("approved", nil), Timeout: saga.NoTimeout},
		saga.Step[trace]{Name: "sub", Do: saga.Child(child, func(s trace) trace { return s }), Success: saga.Succeeded[trace](child, nil), Timeout: time.Hour},
		saga.Pivot[trace]{},
		step("last"),
	)
}

func TestDiagrams(t *testing.T) {
	require.NoError(t, saga.Validate(everything()))
	require.NoError(t, saga.Validate(shipping(billed)))
	golden(t, "steps.mmd", saga.Mermaid(everything()))
	golden(t, "steps.dot", saga.DOT(everything()))
	golden(t, "states.mmd", saga.Mermaid(shipping(billed)))
	golden(t, "states.dot", saga.DOT(shipping(billed)))
}

func TestDiagramOfAnInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log []string
		stop := does("c", &log, fails(errDown))
		stop.Compensate = saga.Call(func(context.Context, trace) (int, error) { return 0, errRefused }, nil)
		d := sagaOf(does("a", &log, nil), does("b", &log, nil), stop, does("d", &log, nil))
		r := newRig(t, d)
		i, err := saga.Execute(t.Context(), r.o, d, "1", trace{})
		require.NoError(t, err)
		require.Equal(t, saga.Stuck, i.Status)
		m, err := saga.MermaidOf(d, i)
		require.NoError(t, err)
		golden(t, "instance.mmd", m)
	})
}
