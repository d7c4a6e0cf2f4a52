package saga

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Progress is how far an instance has come with a step or state: how its diagram
// shows it.
type Progress string

// The progress of steps and states.
const (
	ProgressNext        Progress = "next" // not begun
	ProgressCurrent     Progress = "current"
	ProgressDone        Progress = "done"
	ProgressFailed      Progress = "failed"
	ProgressCompensated Progress = "compensated"
)

// Mermaid returns a diagram of the definition in the language of
// https://mermaid.js.org, which GitHub renders. It is the same for the same
// definition.
func Mermaid(d Untyped) string { return Draw(d).mermaid(nil) }

// MermaidOf returns the diagram of an instance: what it has done, where it is,
// what it has compensated, what may come.
func MermaidOf(d Untyped, i Instance) (string, error) {
	progress, err := ProgressOf(d, i)
	if err != nil {
		return "", err
	}
	return Draw(d).mermaid(progress), nil
}

// ProgressOf returns how far an instance has come with each step or state by its
// name. A step in a loop shows its latest round.
func ProgressOf(d Untyped, i Instance) (map[string]Progress, error) {
	p := &progress{}
	if err := json.Unmarshal(i.Progress, p); err != nil {
		return nil, fmt.Errorf("saga %q: instance %q: the progress can't be decoded: %w", i.Saga, i.ID, err)
	}
	all := map[string]Progress{}
	if m, ok := d.blueprint().program.(*stateProgram); ok {
		all[m.current(p).name] = ProgressCurrent
		if i.Status.Ended() {
			all[m.current(p).name] = ProgressDone
		}
		return all, nil
	}
	for _, key := range p.Order {
		all[nameOf(key)] = p.Steps[key].Status.progress()
	}
	if i.Status == Completed {
		all[string(Completed)] = ProgressDone
	}
	return all, nil
}

func (s stepStatus) progress() Progress {
	switch s {
	case done, skipped:
		return ProgressDone
	case failed, unknown:
		return ProgressFailed
	case undone:
		return ProgressCompensated
	}
	return ProgressCurrent
}

var mermaidShapes = map[GraphKind][2]string{
	GraphStart: {"((", "))"}, GraphEnd: {"(((", ")))"}, GraphStep: {"[", "]"}, GraphState: {"(", ")"},
	GraphChoice: {"{", "}"}, GraphFork: {"[/", "\\]"}, GraphJoin: {"[\\", "/]"}, GraphPivot: {"{{", "}}"},
}

func (g *Graph) mermaid(progress map[string]Progress) string {
	var b strings.Builder
	fmt.Fprintf(&b, "---\ntitle: %s\n---\nflowchart TD\n", mermaidText(g.Name))
	for _, n := range g.Nodes {
		shape := mermaidShapes[n.Kind]
		lines := make([]string, len(n.Label))
		for i, l := range n.Label {
			lines[i] = mermaidText(l)
		}
		fmt.Fprintf(&b, "  %s%s\"%s\"%s\n", n.ID, shape[0], strings.Join(lines, "<br>"), shape[1])
	}
	for _, e := range g.Edges {
		label := ""
		if e.Label != "" {
			label = "|\"" + mermaidText(e.Label) + "\"|"
		}
		fmt.Fprintf(&b, "  %s -->%s %s\n", e.From, label, e.To)
	}
	if progress == nil {
		return b.String()
	}
	for _, n := range g.Nodes {
		if p, ok := progress[n.Step]; ok && n.Step != "" {
			fmt.Fprintf(&b, "  class %s %s\n", n.ID, p)
		}
	}
	b.WriteString("  classDef done fill:#c8e6c9,stroke:#2e7d32,color:#1b1b1b\n" +
		"  classDef current fill:#fff59d,stroke:#f9a825,color:#1b1b1b\n" +
		"  classDef failed fill:#ffcdd2,stroke:#c62828,color:#1b1b1b\n" +
		"  classDef compensated fill:#cfd8dc,stroke:#455a64,color:#1b1b1b\n")
	return b.String()
}

var mermaidEscapes = strings.NewReplacer("\"", "#quot;", "<", "#lt;", ">", "#gt;", "|", "#124;", "\n", " ")

func mermaidText(s string) string { return mermaidEscapes.Replace(s) }
