package sagatest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/millrace-go/millrace/saga"
)

// trace tells what happens, step by step. A nil trace keeps silent.
type trace struct {
	steps  []string
	began  time.Time
	indent string
}

func (t *trace) add(format string, args ...any) {
	if t.began.IsZero() {
		t.began = now()
	}
	t.steps = append(t.steps, fmt.Sprintf(format, args...))
}

// note adds a line to the current step.
func (t *trace) note(format string, args ...any) {
	if t == nil {
		return
	}
	if len(t.steps) == 0 {
		t.add("at the beginning")
	}
	t.steps[len(t.steps)-1] += "\n" + t.indent + "    " + firstLine(fmt.Sprintf(format, args...))
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// move begins a step.
func (t *trace) move(m move) {
	if t == nil {
		return
	}
	what := ""
	switch {
	case m.fault == duplicate:
		what = "  FAULT: it will be delivered again"
	case m.fault == overtaking:
		what = "  FAULT: it overtakes an earlier one of its key"
	case m.fault == timeout:
		what = fmt.Sprintf("  FAULT: all else is late, %v have passed", m.d.at.Sub(t.since()))
	case m.fault == loss:
		what = "  FAULT: lost"
	case m.d.copied:
		what = "  (again)"
	}
	t.add("%s%s", describeDelivery(m.d), what)
}

func (t *trace) since() time.Time {
	if t.began.IsZero() {
		return now()
	}
	return t.began
}

func describeDelivery(d *delivery) string {
	if d.act {
		return d.topic + " -> " + d.to.name
	}
	payload := string(d.m.Payload)
	if len(payload) > 120 {
		payload = payload[:120] + "..."
	}
	return fmt.Sprintf("%s %s -> %s", d.topic, payload, d.to.name)
}

// passes tells that time passes.
func (t *trace) passes(to time.Time) {
	if t != nil {
		t.add("nothing happens until %v have passed", to.Sub(t.since()))
	}
}

func (t *trace) transition(c saga.Commit) {
	if t == nil {
		return
	}
	i := c.Instance
	text := fmt.Sprintf("%s %q: %s => %s", i.Saga, i.ID, c.Entry.Event, c.Entry.To)
	if i.Error != "" && i.Status != saga.Completed {
		text += " (" + firstLine(i.Error) + ")"
	}
	if c.Entry.Note != "" {
		text += " (" + firstLine(c.Entry.Note) + ")"
	}
	t.note("%s", text)
}

func (t *trace) commits(tx *Tx) {
	if t == nil || len(tx.data) == 0 {
		return
	}
	var changes []string
	for key, raw := range tx.data {
		if raw == nil {
			changes = append(changes, "without "+key)
		} else {
			changes = append(changes, key+" = "+string(raw))
		}
	}
	slices.Sort(changes)
	t.note("%s: %s", tx.p.name, strings.Join(changes, ", "))
}

func (t *trace) sends(topic string, due time.Time) {
	if t == nil || !due.IsZero() {
		return
	}
	t.note("sent: %s", topic)
}

// within begins what happens at the same time.
func (t *trace) within(d *delivery, when string) {
	if t != nil {
		t.note("FAULT: %s another process handles %s", when, describeDelivery(d))
		t.indent = "    "
	}
}

func (t *trace) back() {
	if t != nil {
		t.indent = ""
	}
}

// String returns the numbered steps.
func (t *trace) String() string {
	var b strings.Builder
	for i, s := range t.steps {
		fmt.Fprintf(&b, "%3d. %s\n", i+1, s)
	}
	return b.String()
}
