package saga

import (
	"fmt"
	"slices"
	"strings"
)

var dotShapes = map[GraphKind]string{
	GraphStart: "circle", GraphEnd: "doublecircle", GraphStep: "box", GraphState: "ellipse",
	GraphChoice: "diamond", GraphFork: "trapezium", GraphJoin: "invtrapezium", GraphPivot: "hexagon",
}

// DOT returns a diagram of the definition in the language of Graphviz. It is the
// same for the same definition.
func DOT(d Untyped) string {
	g := Draw(d)
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %s {\n", dotText(g.Name))
	for _, n := range g.Nodes {
		fmt.Fprintf(&b, "  %s [shape=%s, label=%s];\n", n.ID, dotShapes[n.Kind], dotText(n.Label...))
	}
	for _, e := range g.Edges {
		label := ""
		if e.Label != "" {
			label = " [label=" + dotText(e.Label) + "]"
		}
		fmt.Fprintf(&b, "  %s -> %s%s;\n", e.From, e.To, label)
	}
	b.WriteString("}\n")
	return b.String()
}

var dotEscapes = strings.NewReplacer("\\", "\\\\", "\"", "\\\"", "\n", " ")

func dotText(lines ...string) string {
	lines = slices.Clone(lines)
	for i := range lines {
		lines[i] = dotEscapes.Replace(lines[i])
	}
	return "\"" + strings.Join(lines, "\\n") + "\""
}
