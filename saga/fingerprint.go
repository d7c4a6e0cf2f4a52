package saga

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// fingerprint is the same for definitions whose instances can go on under each
// other: names, order, topics. Timeouts, retries, functions and the names of Go
// types are not part of it; they may change under a version.
func (b *blueprint) fingerprint() string {
	h := &strings.Builder{}
	fmt.Fprintf(h, "v1 %q %d\n", b.name, b.version)
	writeSources(h, "started by", b.startedBy)
	switch p := b.program.(type) {
	case *stepProgram:
		fmt.Fprintln(h, "in order", p.inOrder)
		writeNodes(h, p.root)
	case *stateProgram:
		for _, s := range p.states {
			writeState(h, s)
		}
	}
	sum := sha256.Sum256([]byte(h.String()))
	return hex.EncodeToString(sum[:16])
}

func writeNodes(w *strings.Builder, nodes []*node) {
	fmt.Fprintln(w, "(")
	for _, n := range nodes {
		fmt.Fprintf(w, "%d %q need %d when %t\n", n.kind, n.name, n.need, n.when != nil)
		writeAction(w, n.do)
		writeAction(w, n.compensate)
		writeSources(w, "success", n.success)
		writeSources(w, "failure", n.failure)
		writeSources(w, "compensated", n.compensated)
		writeNodes(w, n.children)
		writeNodes(w, n.otherwise)
	}
	fmt.Fprintln(w, ")")
}

func writeAction(w *strings.Builder, a action) {
	fmt.Fprintf(w, "action %d %q %q\n", a.kind, a.topic, a.child)
}

func writeSources(w *strings.Builder, as string, sources []source) {
	for _, src := range sources {
		fmt.Fprintf(w, "%s %q\n", as, src.key)
		writeSources(w, "part", src.parts)
	}
}

func writeState(w *strings.Builder, s *state) {
	fmt.Fprintf(w, "state %q %q\n", s.name, s.final)
	writeSources(w, "ignores", s.ignores)
	for _, tr := range s.on {
		fmt.Fprintf(w, "transition %q if %t\n", tr.goTo, tr.cond != nil)
		writeSources(w, "on", tr.sources)
		for _, e := range tr.do {
			fmt.Fprintf(w, "effect %d %q\n", e.kind, e.name)
			writeAction(w, e.action)
		}
	}
}

// sorted goes through the keys of a set in order.
func sorted(set map[string]bool) iter.Seq[string] {
	return slices.Values(slices.Sorted(maps.Keys(set)))
}
