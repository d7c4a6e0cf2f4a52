package sagatest_test

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/sagatest"
)

// The order fulfilment of a shop: stock is reserved, the payment taken, the order
// created and shipped, or nothing of all that.

type (
	// Order is the saga's state.
	Order struct {
		ID         string
		Total      int
		ApprovedBy string
	}
	OrderPlaced struct {
		OrderID string
		Total   int
	}
	// Command is sent to a participant, Answer is what it says.
	Command struct {
		OrderID string
		Total   int
	}
	Answer struct{ OrderID string }
)

func byOrder(a Answer) string { return a.OrderID }

func answers(name string) eventbus.Topic[Answer] {
	return eventbus.NewTopic[Answer](name, eventbus.KeyBy(byOrder))
}

var (
	Placed = eventbus.NewTopic[OrderPlaced]("orders.placed", eventbus.KeyBy(orderID))

	ReserveStock = eventbus.NewTopic[Command]("stock.reserve")
	ReleaseStock = eventbus.NewTopic[Command]("stock.release")
	Reserved     = answers("stock.reserved")
	OutOfStock   = answers("stock.out")
	Released     = answers("stock.released")

	TakePayment   = eventbus.NewTopic[Command]("payments.take")
	RefundPayment = eventbus.NewTopic[Command]("payments.refund")
	Taken         = answers("payments.taken")
	Declined      = answers("payments.declined")
	Refunded      = answers("payments.refunded")

	Ship           = eventbus.NewTopic[Command]("shipping.ship")
	CancelShipment = eventbus.NewTopic[Command]("shipping.cancel")
	Shipped        = answers("shipping.shipped")
	Refused        = answers("shipping.refused")
	Cancelled      = answers("shipping.cancelled")
)

func orderID(e OrderPlaced) string { return e.OrderID }

func begin(o *Order, e OrderPlaced) { o.ID, o.Total = e.OrderID, e.Total }

// command sends one for the order.
func command(topic eventbus.Topic[Command]) saga.Action[Order] {
	return saga.Send(topic, func(o Order) Command { return Command{o.ID, o.Total} })
}

func answer(topic eventbus.Topic[Answer]) saga.Event[Order] {
	return saga.On[Order](topic, byOrder, nil)
}

// shop is the participants, and what they are going to say.
type shop struct {
	soldOut, poor, remote bool
	silent                bool // shipping does not react to orders
}

// open registers the participants' handlers. Each keeps a book by order: what it
// has done, and whether it has refused.
func (s shop) open(w *sagatest.World) {
	takesPart(w, "stock", s.soldOut, ReserveStock, ReleaseStock, Reserved, OutOfStock, Released)
	takesPart(w, "payments", s.poor, TakePayment, RefundPayment, Taken, Declined, Refunded)
	takesPart(w, "shipping", s.remote, Ship, CancelShipment, Shipped, Refused, Cancelled)
	if s.silent {
		sagatest.Handle(w.Participant("shipping"), Ship, func(context.Context, *sagatest.Tx, eventbus.Event[Command]) error { return nil })
	}
}

// takesPart is a well-behaved participant. It answers a command that it has
// carried out before with the same answer: who asks again has not heard it.
func takesPart(w *sagatest.World, name string, refuses bool, do, undo eventbus.Topic[Command], done, refused, undone eventbus.Topic[Answer]) {
	p := w.Participant(name)
	say := func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[Command], what eventbus.Topic[Answer]) error {
		return what.Publish(ctx, tx, Answer{e.Data.OrderID}, saga.Answering(e.Metadata))
	}
	sagatest.HandleAction(p, do,
		func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[Command]) error {
			if refuses {
				tx.Set("refused "+e.Data.OrderID, true)
				return say(ctx, tx, e, refused)
			}
			tx.Set(e.Data.OrderID, sagatest.Get[int](tx, e.Data.OrderID)+e.Data.Total)
			return say(ctx, tx, e, done)
		},
		func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[Command]) error {
			switch {
			case sagatest.Get[bool](tx, "refused "+e.Data.OrderID):
				return say(ctx, tx, e, refused)
			case sagatest.Get[int](tx, e.Data.OrderID) > 0:
				return say(ctx, tx, e, done)
			}
			return nil
		})
	sagatest.HandleCompensation(p, undo,
		func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[Command]) error {
			tx.Delete(e.Data.OrderID)
			return say(ctx, tx, e, undone)
		},
		func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[Command]) error {
			return say(ctx, tx, e, undone)
		})
}

// createOrder and deleteOrder are calls to a service, which may be made again.
func createOrder(w *sagatest.World) func(ctx context.Context, o Order) (struct{}, error) {
	return func(ctx context.Context, o Order) (struct{}, error) {
		return struct{}{}, w.Participant("orders").Do(ctx, func(tx *sagatest.Tx) error {
			tx.Set(o.ID, o.Total)
			return nil
		})
	}
}

func deleteOrder(w *sagatest.World) func(ctx context.Context, o Order) (struct{}, error) {
	return func(ctx context.Context, o Order) (struct{}, error) {
		return struct{}{}, w.Participant("orders").Do(ctx, func(tx *sagatest.Tx) error {
			tx.Delete(o.ID)
			return nil
		})
	}
}

// inSteps is the fulfilment in the notation of steps.
func inSteps(w *sagatest.World) saga.Definition[Order] {
	return saga.Definition[Order]{
		Name: "fulfilment", Version: 1,
		StartedBy: saga.On(Placed, orderID, begin),
		Steps: []saga.Node[Order]{
			saga.Step[Order]{
				Name: "reserve stock",
				Do:   command(ReserveStock), Success: answer(Reserved), Failure: answer(OutOfStock), Timeout: time.Minute,
				Compensate: command(ReleaseStock), Compensated: answer(Released),
			},
			saga.Step[Order]{
				Name: "take payment",
				Do:   command(TakePayment), Success: answer(Taken), Failure: answer(Declined), Timeout: time.Minute,
				Retry:      saga.Retry{Attempts: 3},
				Compensate: command(RefundPayment), Compensated: answer(Refunded),
			},
			saga.Step[Order]{
				Name: "create order",
				Do:   saga.Call(createOrder(w), nil), Timeout: time.Minute,
				Compensate: saga.Call(deleteOrder(w), nil),
			},
			saga.Step[Order]{
				Name: "ship",
				Do:   command(Ship), Success: answer(Shipped), Failure: answer(Refused), Timeout: 30 * 24 * time.Hour,
				Compensate: command(CancelShipment), Compensated: answer(Cancelled),
			},
		},
	}
}

// inStates is the fulfilment in the notation of states.
func inStates(w *sagatest.World) saga.Definition[Order] {
	on := func(e saga.Event[Order], goTo string, do ...saga.Effect[Order]) saga.Transition[Order] {
		return saga.Transition[Order]{Event: e, GoTo: goTo, Do: do}
	}
	send := func(name string, topic eventbus.Topic[Command], within time.Duration) []saga.Effect[Order] {
		return []saga.Effect[Order]{saga.Do(name, command(topic)), saga.Schedule[Order]("late", within)}
	}
	late := saga.Timeout[Order]("late")
	create := saga.Do("create order", saga.Call(createOrder(w), nil))
	remove := saga.Do("delete order", saga.Call(deleteOrder(w), nil))
	reserve := send("reserve stock", ReserveStock, time.Minute)
	release := send("reserve stock", ReleaseStock, time.Minute)
	take := send("take payment", TakePayment, time.Minute)
	refund := send("take payment", RefundPayment, time.Minute)
	ship := send("ship", Ship, 30*24*time.Hour)
	cancel := send("ship", CancelShipment, time.Minute)
	forward := saga.AnyOf(saga.On[Order](Placed, orderID, nil), answer(Reserved), answer(OutOfStock), answer(Taken), answer(Declined), answer(Shipped), answer(Refused))
	return saga.Definition[Order]{
		Name: "fulfilment", Version: 1,
		StartedBy: saga.On(Placed, orderID, begin),
		States: []saga.State[Order]{
			{Name: "reserving", On: []saga.Transition[Order]{
				on(saga.On(Placed, orderID, begin), "", reserve...),
				on(answer(Reserved), "paying", take...),
				on(answer(OutOfStock), "cancelled"),
				on(late, "releasing", release...),
			}},
			{Name: "paying", On: []saga.Transition[Order]{
				on(answer(Taken), "creating", saga.Unschedule[Order]("late"), create),
				on(answer(Declined), "releasing", release...),
				on(late, "refunding", refund...),
			}},
			{Name: "creating", On: []saga.Transition[Order]{
				on(saga.Returned[Order]("create order"), "shipping", ship...),
				on(saga.Failed[Order]("create order"), "deleting", remove),
			}},
			{Name: "shipping", On: []saga.Transition[Order]{
				on(answer(Shipped), "shipped"),
				on(answer(Refused), "deleting", saga.Unschedule[Order]("late"), remove),
				on(late, "cancelling", cancel...),
			}},
			{Name: "shipped", Final: saga.Completed},

			{Name: "cancelling", Ignores: forward, On: []saga.Transition[Order]{
				on(answer(Cancelled), "deleting", saga.Unschedule[Order]("late"), remove),
				on(late, "", cancel...),
			}},
			{Name: "deleting", Ignores: saga.AnyOf(forward, answer(Cancelled)), On: []saga.Transition[Order]{
				on(saga.Returned[Order]("delete order"), "refunding", refund...),
				on(saga.Failed[Order]("delete order"), "", saga.Schedule[Order]("again", time.Second)),
				on(saga.Timeout[Order]("again"), "", remove),
			}},
			{Name: "refunding", Ignores: saga.AnyOf(forward, answer(Cancelled)), On: []saga.Transition[Order]{
				on(answer(Refunded), "releasing", release...),
				on(late, "", refund...),
			}},
			{Name: "releasing", Ignores: saga.AnyOf(forward, answer(Cancelled), answer(Refunded)), On: []saga.Transition[Order]{
				on(answer(Released), "cancelled"),
				on(late, "", release...),
			}},
			{Name: "cancelled", Final: saga.Compensated},
		},
	}
}

// allOrNothing is what must be true in the end: all participants have done their
// part, once, or none has.
func allOrNothing(w *sagatest.World) error {
	return booksAgree(w, "stock", "payments", "orders", "shipping")
}

func booksAgree(w *sagatest.World, participants ...string) error {
	for _, i := range w.Instances() {
		want := 0
		if i.Status == saga.Completed {
			want = 7
		}
		for _, name := range participants {
			if got := sagatest.Get[int](w.Participant(name), i.ID); got != want {
				return fmt.Errorf("the order is %s and %s has %d in its book for it, want %d", i.Status, name, got, want)
			}
		}
	}
	return nil
}

// explored is the exploration of a definition with a shop.
func explored(d func(*sagatest.World) saga.Definition[Order], s shop) sagatest.Exploration {
	return sagatest.Exploration{
		Setup: func(w *sagatest.World) {
			w.Orchestrate(d(w))
			s.open(w)
			sagatest.Publish(w, Placed, OrderPlaced{"o-1", 7})
		},
		Invariant: allOrNothing,
	}
}
