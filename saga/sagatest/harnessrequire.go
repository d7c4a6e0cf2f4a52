package sagatest

import (
	"reflect"
	"slices"
	"strings"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

// State returns the state of an instance. The test fails if there is none.
func State[S any](h *Harness, d saga.Definition[S], id string) S {
	h.t.Helper()
	i := h.require(id)
	if i.Saga != d.Name {
		h.t.Fatalf("sagatest: instance %q is of saga %q, not %q", id, i.Saga, d.Name)
	}
	state, err := saga.StateOf(d, i)
	if err != nil {
		h.t.Fatalf("sagatest: %v", err)
	}
	return state
}

// require returns an instance that must be there.
func (h *Harness) require(id string) saga.Instance {
	h.t.Helper()
	i, ok := h.Instance(id)
	if !ok {
		h.t.Fatalf("sagatest: there is no instance %q\n%s", id, h.tell())
	}
	return i
}

// RequireStatus fails the test unless an instance has the given status.
func (h *Harness) RequireStatus(id string, want saga.Status) {
	h.t.Helper()
	if i := h.require(id); i.Status != want {
		h.t.Fatalf("sagatest: instance %q is %s, want %s\n%s", id, i.Status, want, h.History(id))
	}
}

// RequireState fails the test unless an instance that has not ended is in the
// state of that name or, in the notation of steps, is busy with what that says:
// "take payment: waiting", several separated by ", ".
func (h *Harness) RequireState(id, want string) {
	h.t.Helper()
	i := h.require(id)
	history := h.store.kept[[2]string{i.Saga, i.ID}].history
	_, got, _ := strings.Cut(history[len(history)-1].To, ": ")
	if got != want {
		h.t.Fatalf("sagatest: instance %q is at %q (%s), want %q\n%s", id, got, i.Status, want, h.History(id))
	}
}

// RequireCompensated fails the test unless an instance was compensated and these
// are the steps for which something was done, in that order. Steps that need no
// compensation don't count.
func (h *Harness) RequireCompensated(id string, steps ...string) {
	h.t.Helper()
	h.RequireStatus(id, saga.Compensated)
	i := h.require(id)
	if got := h.store.kept[[2]string{i.Saga, i.ID}].undone; !slices.Equal(got, steps) {
		h.t.Fatalf("sagatest: instance %q has compensated %q, want %q\n%s", id, got, steps, h.History(id))
	}
}

// RequireSent fails the test unless these are all the events of topic that were
// published so far, in that order.
func RequireSent[E any](h *Harness, topic eventbus.Topic[E], want ...E) {
	h.t.Helper()
	got := Sent(h.World, topic)
	h.check()
	if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		h.t.Fatalf("sagatest: published to topic %q: %+v, want %+v\n%s", topic.Name(), got, want, h.tell())
	}
}

// RequireDeadLetter fails the test unless a consumer has given up a message, and
// returns the first that was not asked for before.
func (h *Harness) RequireDeadLetter() DeadLetter {
	h.t.Helper()
	if h.asked == len(h.dead) {
		h.t.Fatalf("sagatest: no message was given up\n%s", h.tell())
	}
	h.asked++
	return h.dead[h.asked-1]
}
