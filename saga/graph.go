package saga

import (
	"fmt"
	"slices"
	"strings"
)

// Graph is a definition as nodes and edges, to be drawn.
type Graph struct {
	Name  string
	Nodes []GraphNode
	Edges []GraphEdge
}

// GraphNode is a step, a state, or a point where paths part or meet.
type GraphNode struct {
	ID    string // unique in the graph
	Step  string // name of the step or state, or empty
	Kind  GraphKind
	Label []string // lines
}

// GraphKind is what a node of a Graph stands for.
type GraphKind string

// The kinds of nodes.
const (
	GraphStart  GraphKind = "start"
	GraphEnd    GraphKind = "end"
	GraphStep   GraphKind = "step"
	GraphState  GraphKind = "state"
	GraphChoice GraphKind = "choice"
	GraphFork   GraphKind = "fork"
	GraphJoin   GraphKind = "join"
	GraphPivot  GraphKind = "pivot"
)

// GraphEdge leads from one node to another.
type GraphEdge struct {
	From, To string
	Label    string
}

// Draw returns the graph of a definition.
func Draw(d Untyped) *Graph {
	b := d.blueprint()
	g := &grapher{Graph: &Graph{Name: fmt.Sprintf("%s v%d", b.name, b.version)}}
	start := g.node(GraphStart, "", "start")
	switch p := b.program.(type) {
	case *stepProgram:
		last := g.sequence(p.root, []exit{{from: start, label: keys(b.startedBy)}})
		g.join(last, g.node(GraphEnd, string(Completed), string(Completed)))
	case *stateProgram:
		g.states(p, start, b.startedBy)
	}
	return g.Graph
}

// grapher builds a graph.
type grapher struct{ *Graph }

// exit is the beginning of an edge whose end is not known yet.
type exit struct{ from, label string }

func (g *grapher) node(kind GraphKind, step string, label ...string) string {
	id := fmt.Sprintf("n%d", len(g.Nodes))
	g.Nodes = append(g.Nodes, GraphNode{ID: id, Step: step, Kind: kind, Label: label})
	return id
}

func (g *grapher) join(from []exit, to string) {
	for _, e := range from {
		g.Edges = append(g.Edges, GraphEdge{e.from, to, e.label})
	}
}

func (g *grapher) sequence(nodes []*node, in []exit) []exit {
	for _, n := range nodes {
		in = g.draw(n, in)
	}
	return in
}

func (g *grapher) draw(n *node, in []exit) []exit {
	switch n.kind {
	case pivotNode:
		return g.single(GraphPivot, "", in, "pivot", "no way back")
	case parallelNode:
		return g.parallel(n, in)
	case ifNode:
		if n.when == nil {
			return g.sequence(n.children, in)
		}
		choice := g.node(GraphChoice, "", n.name)
		g.join(in, choice)
		yes := g.sequence(n.children, []exit{{choice, "yes"}})
		return append(yes, g.sequence(n.otherwise, []exit{{choice, "no"}})...)
	case loopNode:
		choice := g.node(GraphChoice, "", n.name, fmt.Sprintf("at most %d times", n.need))
		g.join(in, choice)
		g.join(g.sequence(n.children, []exit{{choice, "again"}}), choice)
		return []exit{{choice, "done"}}
	}
	out := g.single(GraphStep, n.name, in, n.label()...)
	if n.when != nil {
		return append(out, labelled(in, "left out")...)
	}
	return out
}

func labelled(in []exit, label string) []exit {
	out := slices.Clone(in)
	for i := range out {
		out[i].label = label
	}
	return out
}

func (g *grapher) single(kind GraphKind, step string, in []exit, label ...string) []exit {
	id := g.node(kind, step, label...)
	g.join(in, id)
	return []exit{{from: id}}
}

func (g *grapher) parallel(n *node, in []exit) []exit {
	fork := g.node(GraphFork, "", n.name)
	g.join(in, fork)
	need := "all"
	if n.need != All {
		need = fmt.Sprintf("%d of %d", n.need, len(n.children))
	}
	var out []exit
	for _, c := range n.children {
		out = append(out, g.draw(c, []exit{{from: fork}})...)
	}
	meet := g.node(GraphJoin, "", need)
	g.join(out, meet)
	return []exit{{from: meet}}
}

// label says what a step does and how it is undone.
func (n *node) label() []string {
	lines := []string{n.name}
	switch {
	case n.do.kind == nothing:
		lines = append(lines, "waits for "+keys(n.success))
	case n.do.String() != "":
		lines = append(lines, n.do.String())
	}
	switch {
	case n.do.kind == startChild:
		lines = append(lines, "undo: compensates it")
	case n.compensate.kind == send || n.compensate.kind == invoke:
		lines = append(lines, "undo: "+n.compensate.String())
	}
	return lines
}

// String says what an action does.
func (a action) String() string {
	switch a.kind {
	case send:
		return "sends " + a.topic
	case invoke:
		return "calls"
	case startChild:
		return "runs saga " + a.child
	}
	return ""
}

func keys(sources []source) string {
	var all []string
	for _, src := range sources {
		all = append(all, src.key)
	}
	return strings.Join(all, " or ")
}

func (g *grapher) states(p *stateProgram, start string, startedBy []source) {
	ids := map[string]string{}
	for _, s := range p.states {
		ids[s.name] = g.node(GraphState, s.name, s.name)
		if s.final != "" {
			g.Nodes[len(g.Nodes)-1].Kind = GraphEnd
			g.Nodes[len(g.Nodes)-1].Label = append(g.Nodes[len(g.Nodes)-1].Label, string(s.final))
		}
	}
	g.join([]exit{{start, keys(startedBy)}}, ids[p.states[0].name])
	for _, s := range p.states {
		for _, tr := range s.on {
			to := tr.goTo
			if to == "" {
				to = s.name
			}
			if id, ok := ids[to]; ok {
				g.join([]exit{{ids[s.name], tr.label()}}, id)
			}
		}
	}
}

// label says what a transition happens on and what it does.
func (tr transition) label() string {
	label := keys(tr.sources)
	if tr.cond != nil {
		label += " [if]"
	}
	var does []string
	for _, e := range tr.do {
		switch e.kind {
		case schedule:
			does = append(does, fmt.Sprintf("schedule %s %v", e.name, e.after))
		case unschedule:
			does = append(does, "unschedule "+e.name)
		case anew:
			does = append(does, "anew "+e.name)
		case doAction:
			does = append(does, strings.TrimSpace(e.action.String()+" "+e.callName()))
		}
	}
	if len(does) > 0 {
		label += " / " + strings.Join(does, ", ")
	}
	return label
}

func (e effect) callName() string {
	if e.action.kind == invoke {
		return e.name
	}
	return ""
}
