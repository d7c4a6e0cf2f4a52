package sagatest_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/sagatest"
)

type notation = func(*sagatest.World) saga.Definition[Order]

func TestFulfilmentUnderEverySchedule(t *testing.T) {
	runs := 0
	for notation, d := range map[string]notation{"steps": inSteps, "states": inStates} {
		for name, s := range map[string]shop{
			"shipped": {}, "out of stock": {soldOut: true}, "declined": {poor: true}, "shipping refused": {remote: true}, "shipping silent": {silent: true},
		} {
			t.Run(notation+"/"+name, func(t *testing.T) {
				e := explored(d, s)
				if raced && name != "out of stock" {
					e.Faults.Total = 1
				}
				r := sagatest.Explore(t, e)
				require.True(t, r.Complete)
				runs += r.Runs
			})
		}
	}
	if !raced {
		require.Greater(t, runs, 5000)
	}
}

// changed is a definition with one of its steps changed.
func changed(name string, change func(w *sagatest.World, s *saga.Step[Order])) notation {
	return func(w *sagatest.World) saga.Definition[Order] {
		d := inSteps(w)
		for i, n := range d.Steps {
			if s := n.(saga.Step[Order]); s.Name == name {
				change(w, &s)
				d.Steps[i] = s
			}
		}
		return d
	}
}

// seeded are bugs in definitions and participants, and what an exploration has to
// say about them.
var seeded = map[string]struct {
	definition   notation
	shop         shop
	participants func(w *sagatest.World) // in place of others
	faults       int
	err          string
	told         []string // by the steps, in this order
}{
	"the compensation was forgotten": {
		definition: changed("take payment", func(_ *sagatest.World, s *saga.Step[Order]) {
			s.Compensate, s.Compensated = saga.NotNeeded[Order]("nobody thought of it"), saga.Event[Order]{}
		}),
		shop: shop{remote: true},
		err:  "the order is compensated and payments has 7 in its book for it, want 0",
		told: []string{"payments: o-1 = 7", "shipping.refused", "sent: stock.release"},
	},
	"a participant charges twice": {
		definition: inSteps,
		participants: func(w *sagatest.World) {
			sagatest.Handle(w.Participant("payments"), TakePayment, charge)
		},
		faults: 1,
		err:    "payments has 14 in its book for it, want 7",
		told:   []string{"payments.take", "FAULT: it will be delivered again", "payments: o-1 = 7", "payments.take", "(again)", "payments: o-1 = 14"},
	},
	"an action arrives after its compensation": {
		definition: changed("take payment", func(_ *sagatest.World, s *saga.Step[Order]) { s.Retry = saga.Retry{} }),
		participants: func(w *sagatest.World) {
			sagatest.HandleOnce(w.Participant("payments"), TakePayment, charge)
			sagatest.HandleOnce(w.Participant("payments"), RefundPayment, func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[Command]) error {
				tx.Delete(e.Data.OrderID)
				return Refunded.Publish(ctx, tx, Answer{e.Data.OrderID}, saga.Answering(e.Metadata))
			})
		},
		faults: 1,
		err:    "the order is compensated and payments has 7 in its book for it, want 0",
		told:   []string{"FAULT: all else is late", "payments.refund", "-> payments", "payments.take", "-> payments", "payments: o-1 = 7"},
	},
	"the correlation is wrong": {
		definition: changed("take payment", func(_ *sagatest.World, s *saga.Step[Order]) {
			s.Success = saga.On[Order](Taken, func(a Answer) string { return "order/" + a.OrderID }, nil)
		}),
		err:  `dead letter: saga fulfilment has given up a message of topic "payments.taken"`,
		told: []string{"payments.taken", "given up:", "there is no such instance: check the correlation"},
	},
	"a timeout is missing": {
		definition: changed("reserve stock", func(_ *sagatest.World, s *saga.Step[Order]) { s.Timeout = saga.NoTimeout }),
		faults:     1,
		err:        `instance "o-1" of saga "fulfilment" will never end: nothing is on its way, and it is running: reserve stock: waiting`,
		told:       []string{"stock.reserved", "FAULT: lost"},
	},
	"a compensation fails for ever": {
		definition: changed("create order", func(w *sagatest.World, s *saga.Step[Order]) {
			s.Compensate = saga.Call(func(context.Context, Order) (struct{}, error) { return struct{}{}, context.DeadlineExceeded }, nil)
		}),
		shop: shop{remote: true},
		err:  `instance "o-1" of saga "fulfilment" is stuck: step "create order" could not be compensated in 10 attempts`,
		told: []string{"shipping.refused", "undo:create order", "saga.fulfilment.stuck"},
	},
}

func charge(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[Command]) error {
	tx.Set(e.Data.OrderID, sagatest.Get[int](tx, e.Data.OrderID)+e.Data.Total)
	return Taken.Publish(ctx, tx, Answer{e.Data.OrderID}, saga.Answering(e.Metadata))
}

func TestSeededBugsAreFound(t *testing.T) {
	for name, tt := range seeded {
		t.Run(name, func(t *testing.T) {
			e := explored(tt.definition, tt.shop)
			if tt.participants != nil {
				setup := e.Setup
				e.Setup = func(w *sagatest.World) { setup(w); tt.participants(w) }
			}
			r := sagatest.Check(e)
			require.NotNil(t, r.Failure, "the bug was not found: %v", r)
			t.Log(r)
			require.Equal(t, tt.faults, r.Failure.Faults)
			require.ErrorContains(t, r.Failure.Err, tt.err)
			rest := strings.Join(r.Failure.Steps, "\n")
			for _, told := range tt.told {
				_, after, found := strings.Cut(rest, told)
				require.True(t, found, "%q is not told in its place:\n%v", told, r)
				rest = after
			}

			require.Equal(t, r, sagatest.Check(e), "the same exploration has the same report")
			e.Schedule = r.Failure.Schedule
			replayed := sagatest.Check(e)
			require.Equal(t, r.Failure, replayed.Failure, "the schedule replays the failure")
			require.Equal(t, 1, replayed.Runs)
		})
	}
}
