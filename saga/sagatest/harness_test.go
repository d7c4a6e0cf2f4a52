package sagatest_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/sagatest"
)

// calling is the harness of a fulfilment whose calls go to its own participants.
func calling(t testing.TB, d func(*sagatest.World) saga.Definition[Order]) (*sagatest.Harness, saga.Definition[Order]) {
	var h *sagatest.Harness
	definition := d(nil)
	for i, n := range definition.Steps {
		if s, ok := n.(saga.Step[Order]); ok && s.Name == "create order" {
			s.Do = saga.Call(func(ctx context.Context, o Order) (struct{}, error) { return createOrder(h.World)(ctx, o) }, nil)
			s.Compensate = saga.Call(func(ctx context.Context, o Order) (struct{}, error) { return deleteOrder(h.World)(ctx, o) }, nil)
			definition.Steps[i] = s
		}
	}
	h = sagatest.New(t, definition)
	return h, definition
}

func TestHarness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, d := calling(t, inSteps)
		shop{}.open(h.World)
		sagatest.When(h, Placed, OrderPlaced{"o-1", 7})
		h.RequireStatus("o-1", saga.Completed)
		require.Equal(t, 7, sagatest.State(h, d, "o-1").Total)
		sagatest.RequireSent(h, Taken, Answer{"o-1"})
		sagatest.RequireSent(h, RefundPayment)
		require.Equal(t, []string{"o-1"}, h.Participant("payments").Keys())
	})
}

func TestHarnessThirtyDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, _ := calling(t, inSteps)
		shop{silent: true}.open(h.World)
		sagatest.When(h, Placed, OrderPlaced{"o-1", 7})
		h.RequireState("o-1", "ship: waiting")
		began := time.Now()
		h.Advance(30*24*time.Hour - time.Second)
		h.RequireState("o-1", "ship: waiting")
		h.Advance(time.Second)
		require.Equal(t, 30*24*time.Hour, time.Since(began))
		h.RequireCompensated("o-1", "ship", "create order", "take payment", "reserve stock")
		require.Contains(t, h.History("o-1"), "after 720h0m0s: wake => compensating: ship: compensating, sends shipping.cancel")
	})
}

func TestHarnessAnswersSignalsAndOperators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		approved := saga.Signal("approve", func(o *Order, by string) { o.ApprovedBy = by })
		d := saga.Definition[Order]{Name: "approval", Version: 1, Steps: []saga.Node[Order]{
			saga.Step[Order]{
				Name: "reserve stock", Do: command(ReserveStock), Success: answer(Reserved), Timeout: time.Minute,
				Compensate: command(ReleaseStock),
			},
			saga.Step[Order]{Name: "approval", Success: approved, Timeout: time.Hour},
		}}
		h := sagatest.New(t, d)
		sagatest.Answer(h, ReserveStock, Reserved, func(c Command) Answer { return Answer{c.OrderID + fmt.Sprint(c.Total)} })

		sagatest.Start(h, d, "1", Order{Total: 1})
		h.RequireState("1", "approval: waiting")
		h.Signal("1", "approve", "ada")
		h.RequireStatus("1", saga.Completed)
		require.Equal(t, Order{Total: 1, ApprovedBy: "ada"}, sagatest.State(h, d, "1"))

		sagatest.Start(h, d, "2", Order{Total: 2})
		require.NoError(t, h.Operate(func(ctx context.Context, o *saga.Orchestrator) error {
			return o.Cancel(ctx, "approval", "2", "a customer")
		}))
		h.RequireCompensated("2", "reserve stock")
		sagatest.RequireSent(h, ReleaseStock, Command{Total: 2})

		sagatest.When(h, Reserved, Answer{"nobody"})
		require.ErrorIs(t, h.RequireDeadLetter().Err, saga.ErrNoInstance)
	})
}

// failing records what a Harness says to a test that fails.
type failing struct {
	testing.TB
	said     strings.Builder
	cleanups []func()
}

func (f *failing) Fatalf(format string, args ...any) {
	fmt.Fprintf(&f.said, format, args...)
	runtime.Goexit()
}
func (f *failing) Fatal(args ...any)                 { f.Fatalf("%s", fmt.Sprint(args...)) }
func (f *failing) Errorf(format string, args ...any) { fmt.Fprintf(&f.said, format, args...) }
func (f *failing) Cleanup(cleanup func())            { f.cleanups = append(f.cleanups, cleanup) }

// says returns what the test is told.
func says(t *testing.T, test func(t testing.TB, h *sagatest.Harness, d saga.Definition[Order])) string {
	f := &failing{TB: t}
	synctest.Test(t, func(*testing.T) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			h, d := calling(f, inSteps)
			shop{}.open(h.World)
			sagatest.When(h, Placed, OrderPlaced{"o-1", 7})
			test(f, h, d)
		}()
		<-done
		for _, cleanup := range f.cleanups {
			cleanup()
		}
	})
	return f.said.String()
}

func TestHarnessSaysWhatIsWrong(t *testing.T) {
	for name, tt := range map[string]struct {
		test func(h *sagatest.Harness, d saga.Definition[Order])
		want []string
	}{
		"status":      {func(h *sagatest.Harness, _ saga.Definition[Order]) { h.RequireStatus("o-1", saga.Stuck) }, []string{`instance "o-1" is completed, want stuck`, "stock.reserved => running: take payment: waiting, sends payments.take"}},
		"state":       {func(h *sagatest.Harness, _ saga.Definition[Order]) { h.RequireState("o-1", "ship: waiting") }, []string{`is at "" (completed), want "ship: waiting"`, "=> completed"}},
		"compensated": {func(h *sagatest.Harness, _ saga.Definition[Order]) { h.RequireCompensated("o-1", "ship") }, []string{"is completed, want compensated"}},
		"sent":        {func(h *sagatest.Harness, _ saga.Definition[Order]) { sagatest.RequireSent(h, Declined, Answer{"o-1"}) }, []string{`published to topic "payments.declined": [], want [{OrderID:o-1}]`, "=> completed"}},
		"no instance": {func(h *sagatest.Harness, d saga.Definition[Order]) { sagatest.State(h, d, "o-2") }, []string{`there is no instance "o-2"`, `saga "fulfilment", instance "o-1" is completed`}},
		"no letter":   {func(h *sagatest.Harness, _ saga.Definition[Order]) { h.RequireDeadLetter() }, []string{"no message was given up"}},
		"dead letter": {func(h *sagatest.Harness, _ saga.Definition[Order]) { sagatest.When(h, Taken, Answer{"o-2"}) }, []string{`saga fulfilment has given up a message of topic "payments.taken"`, "there is no such instance"}},
		"panic": {func(h *sagatest.Harness, _ saga.Definition[Order]) {
			sagatest.Handle(h.Participant("stock"), ReserveStock, func(context.Context, *sagatest.Tx, eventbus.Event[Command]) error { panic("broken") })
			sagatest.When(h, Placed, OrderPlaced{"o-2", 7})
		}, []string{`participant "stock" panicked: broken`}},
	} {
		t.Run(name, func(t *testing.T) {
			said := says(t, func(_ testing.TB, h *sagatest.Harness, d saga.Definition[Order]) { tt.test(h, d) })
			for _, want := range tt.want {
				require.Contains(t, said, want)
			}
		})
	}
	t.Run("outside of a bubble", func(t *testing.T) {
		f := &failing{TB: t}
		done := make(chan struct{})
		go func() { defer close(done); sagatest.New(f) }()
		<-done
		require.Contains(t, f.said.String(), "within synctest.Test")
	})
}
