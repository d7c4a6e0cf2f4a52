package sagatest_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/sagatest"
)

// gathering asks two participants at once, and undoes both if one refuses.
func gathering(*sagatest.World) saga.Definition[Order] {
	placed := saga.On(Placed, orderID, begin)
	late := saga.Timeout[Order]("late")
	both := []saga.Effect[Order]{saga.Do("stock", command(ReserveStock)), saga.Do("payment", command(TakePayment)), saga.Schedule[Order]("late", time.Minute)}
	undo := []saga.Effect[Order]{saga.Do("stock", command(ReleaseStock)), saga.Do("payment", command(RefundPayment)), saga.Schedule[Order]("late", time.Minute)}
	return saga.Definition[Order]{
		Name: "gathering", Version: 1, StartedBy: placed,
		States: []saga.State[Order]{
			{Name: "asking", On: []saga.Transition[Order]{
				{Event: placed, Do: both},
				{Event: saga.AllOf("both", answer(Reserved), answer(Taken)), GoTo: "done"},
				{Event: saga.AnyOf(answer(OutOfStock), answer(Declined), late), Do: undo, GoTo: "undoing"},
			}},
			{Name: "undoing", Ignores: saga.AnyOf(placed, answer(Reserved), answer(Taken), answer(OutOfStock), answer(Declined)), On: []saga.Transition[Order]{
				{Event: saga.AllOf("undone", answer(Released), answer(Refunded)), GoTo: "undone"},
				{Event: late, Do: undo},
			}},
			{Name: "done", Final: saga.Completed},
			{Name: "undone", Final: saga.Compensated},
		},
	}
}

func TestCompositeEventsUnderEverySchedule(t *testing.T) {
	for name, s := range map[string]shop{"done": {}, "refused": {poor: true}} {
		t.Run(name, func(t *testing.T) {
			e := explored(gathering, s)
			e.Faults.Total = 1
			e.Invariant = func(w *sagatest.World) error { return booksAgree(w, "stock", "payments") }
			require.True(t, sagatest.Explore(t, e).Complete)
		})
	}
}
