package sagatest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

// Harness is a World in which nothing goes wrong, with expectations. It is for
// one goroutine within synctest.Test, whose clock it moves. The test fails in the
// end if a message was given up that nobody has asked for by RequireDeadLetter,
// or if functions of the test's own participants have panicked.
type Harness struct {
	*World
	t     testing.TB
	asked int // dead letters
}

// New returns a harness for definitions: the saga under test, older versions of
// it, and sagas that are its steps. Call it within synctest.Test.
func New(t testing.TB, definitions ...saga.Untyped) *Harness {
	t.Helper()
	if !inBubble() {
		t.Fatal("sagatest: New must be called within synctest.Test, whose clock it moves")
	}
	h := &Harness{World: newWorld(), t: t}
	h.Orchestrate(definitions...)
	h.check()
	t.Cleanup(func() {
		for _, d := range h.dead[h.asked:] {
			t.Errorf("sagatest: %s has given up a message of topic %q: %v", d.Consumer, d.Topic, d.Err)
		}
	})
	return h
}

// inBubble reports whether the caller is within synctest.Test.
func inBubble() (yes bool) {
	defer func() { _ = recover() }()
	synctest.Wait()
	return true
}

// Answer has commands answered: fn makes the answer of the command. A topic that
// nobody answers is a participant that is silent. For more, a participant that
// refuses or keeps data, there is Handle with h.Participant.
func Answer[C, A any](h *Harness, commands eventbus.Topic[C], answers eventbus.Topic[A], fn func(command C) A) {
	Handle(h.Participant(commands.Name()), commands, func(ctx context.Context, tx *Tx, e eventbus.Event[C]) error {
		return answers.Publish(ctx, tx, fn(e.Data), saga.Answering(e.Metadata))
	})
}

// When publishes an event, as a given or as what is tested, and lets everything
// happen that follows at once.
func When[E any](h *Harness, topic eventbus.Topic[E], event E, opts ...eventbus.PublishOption) {
	h.t.Helper()
	Publish(h.World, topic, event, opts...)
	h.settle()
}

// Start begins an instance with a state, as saga.Start does, and lets everything
// happen that follows at once.
func Start[S any](h *Harness, d saga.Definition[S], id string, state S) {
	h.t.Helper()
	h.fail(saga.Start(context.Background(), h.World, d, id, state))
	h.settle()
}

// Signal sends a signal to an instance, and lets everything happen that follows
// at once.
func (h *Harness) Signal(id, signal string, data any) {
	h.t.Helper()
	h.fail(saga.SendSignal(context.Background(), h.World, h.require(id).Saga, id, signal, data))
	h.settle()
}

// Operate does something to the orchestrator, such as a Cancel or Retry, and lets
// everything happen that follows at once. It returns act's error.
func (h *Harness) Operate(act func(ctx context.Context, o *saga.Orchestrator) error) error {
	h.t.Helper()
	err := act(context.Background(), h.Orchestrator())
	h.settle()
	return err
}

// Advance lets d pass, and everything happen that is due meanwhile.
func (h *Harness) Advance(d time.Duration) {
	h.t.Helper()
	end := now().Add(d)
	for {
		next := h.next(now())
		if next == nil || next.at.After(end) {
			break
		}
		time.Sleep(time.Until(next.at))
		h.settle()
	}
	time.Sleep(time.Until(end))
}

// maxSettled is how much may happen at once.
const maxSettled = 10_000

// settle lets everything happen that is due.
func (h *Harness) settle() {
	h.t.Helper()
	for n := 0; len(h.lanes(now())) > 0 && h.failure == nil; n++ {
		if n == maxSettled {
			h.t.Fatalf("sagatest: there was no end after %d deliveries\n%s", n, h.tell())
		}
		h.step()
	}
	h.check()
}

// check fails the test with what was wrong with it.
func (h *Harness) check() {
	h.t.Helper()
	if err := h.failure; err != nil {
		h.failure = nil
		h.t.Fatalf("sagatest: %v", err)
	}
}

// History returns the transitions of an instance as text, one a line.
func (h *Harness) History(id string) string {
	i, ok := h.Instance(id)
	if !ok {
		return ""
	}
	var b strings.Builder
	var began time.Time
	for _, e := range h.store.kept[[2]string{i.Saga, i.ID}].history {
		if began.IsZero() {
			began = e.At
		}
		fmt.Fprintf(&b, "%4d. after %v: %s => %s", e.Revision, e.At.Sub(began), e.Event, e.To)
		if len(e.Emitted) > 0 {
			fmt.Fprintf(&b, ", sends %s", strings.Join(e.Emitted, ", "))
		}
		if e.Note != "" {
			fmt.Fprintf(&b, " (%s)", firstLine(e.Note))
		}
		b.WriteByte('\n')
	}
	if i.Error != "" {
		fmt.Fprintf(&b, "      because %s\n", firstLine(i.Error))
	}
	return b.String()
}

// tell returns the histories of all instances.
func (h *Harness) tell() string {
	var b strings.Builder
	for _, i := range h.Instances() {
		fmt.Fprintf(&b, "saga %q, instance %q is %s, state %s\n%s", i.Saga, i.ID, i.Status, i.State, h.History(i.ID))
	}
	return b.String()
}
