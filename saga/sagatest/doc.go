// Package sagatest tests sagas: with given, when and then under virtual time, and
// by exploring every order and every fault of a bounded run. It needs the
// standard library only.
//
// # Given, when, then
//
// Within testing/synctest, [New] gives a [Harness]: the definition with an
// orchestrator and a network in memory, on which nothing goes wrong. Say how
// participants answer, let something happen, and require what follows:
//
//	synctest.Test(t, func(t *testing.T) {
//		h := sagatest.New(t, Fulfilment)
//		sagatest.Answer(h, ReserveStock, StockReserved, func(c Reserve) Reserved { return Reserved{c.OrderID} })
//		sagatest.When(h, OrdersPlaced, OrderPlaced{OrderID: "o-1"})
//		h.RequireState("o-1", "ship: waiting")
//		h.Advance(30 * 24 * time.Hour)
//		h.RequireCompensated("o-1", "ship", "take payment", "reserve stock")
//	})
//
// A failure prints the history of the instance. Thirty days take no time.
//
// # Exploring
//
// [Explore] asks what else could have happened. It runs the definition, together
// with participants written for it, again and again: under every order in which
// messages may arrive, and every combination of [Faults] within bounds. Each run
// is made in a fresh [World]:
//
//	sagatest.Explore(t, sagatest.Exploration{
//		Setup: func(w *sagatest.World) {
//			w.Orchestrate(Fulfilment)
//			payments := w.Participant("payments")
//			sagatest.HandleAction(payments, TakePayment, take, takenBefore)
//			sagatest.HandleCompensation(payments, RefundPayment, refund, nothingToRefund)
//			sagatest.Publish(w, OrdersPlaced, OrderPlaced{OrderID: "o-1"})
//		},
//		Invariant: func(w *sagatest.World) error { ... money is taken if and only if the order was shipped ... },
//	})
//
// A [Participant] has a database of its own, a [Tx] that commits what it writes
// and publishes together, and the inbox and barrier of package idempotency. Those
// that are registered with [Handle] have neither, which shows what they are for.
// [Participant.Do] stands for the remote side of a saga.Call. [World.Act] has an
// operator do something at every point.
//
// What goes wrong: a process crashes between commits or after one, and what it
// handled comes again; a message is delivered twice, the second time whenever; an
// answer, or that of a call, is lost; a message overtakes an earlier one of its
// key; a timer is due while messages are still on their way; another process
// handles a message for the instance in between. That messages of different
// topics or keys arrive in any order is no fault.
//
// What must hold in every run: it ends, with every instance completed or
// compensated, none stuck and no message in a dead-letter topic
// ([Exploration.AllowStuck], [Exploration.AllowDeadLetters]), and your Invariant.
//
// # Counter-examples
//
// Runs are tried by their number of faults, so the failure that is found has the
// fewest, and by default among those the fewest messages out of turn. It is
// told step by step, with a schedule that replays it ([Exploration.Schedule]), in
// a debugger if need be. Exploring is deterministic.
//
// # What it does not see
//
// A state that was seen before is not explored again. Two states are the same if
// the instances, the participants' data and the messages on their way are; of
// times only the order counts. What a test remembers elsewhere, or makes of
// random numbers and clocks, is not seen. Bounds are bounds: a bug that needs
// three faults is not found with two, nor one that needs two instances with one.
//
// # Testing a store
//
// [RunStore] is the conformance suite of saga.Store.
package sagatest
