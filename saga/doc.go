// Package saga runs business processes that span services: several steps, each a
// transaction of its own somewhere, that in the end are all done or all undone.
// It is a library in the service's own database; there is no server.
//
// # Definitions
//
// A [Definition] is data: named, versioned, checked when the program starts
// ([Validate]), and drawable ([Mermaid], [DOT]). It has a state, a struct of yours,
// and one of two notations. Steps say what is done, how long it may take, and how
// it is undone:
//
//	var Fulfilment = saga.Definition[Order]{
//		Name: "fulfilment", Version: 1,
//		StartedBy: saga.On(OrdersPlaced, func(e OrderPlaced) string { return e.OrderID }, func(o *Order, e OrderPlaced) { o.Total = e.Total }),
//		Steps: []saga.Node[Order]{
//			saga.Step[Order]{
//				Name:       "reserve stock",
//				Do:         saga.Send(ReserveStock, func(o Order) ReserveStockCommand { ... }),
//				Success:    saga.On(StockReserved, orderOf, applyReservation),
//				Failure:    saga.On(OutOfStock, orderOf2, nil),
//				Timeout:    time.Minute,
//				Compensate: saga.Send(ReleaseStock, func(o Order) ReleaseStockCommand { ... }),
//			},
//			saga.Step[Order]{
//				Name: "take payment", Do: saga.Call(charge, applyReceipt), Timeout: 30 * time.Second,
//				Retry: saga.Retry{Attempts: 3}, Compensate: saga.Call(refund, nil),
//			},
//			saga.Pivot[Order]{},
//			saga.Step[Order]{Name: "ship", Do: ..., Success: ..., Timeout: time.Hour},
//		},
//	}
//
// [Parallel] (all, any, n of m), [If], [Loop] and [Child] combine steps. The other
// notation is that of state machines: States with transitions On events, If
// guards, effects ([Do], [Schedule], [Unschedule]) and GoTo; see [State].
//
// # Running
//
// An [Orchestrator] handles the events of its sagas as part of a service; any
// number of processes may run it.
//
//	store := saga.NewSQLStore(db, saga.Postgres, box, inbox)
//	o, err := saga.NewOrchestrator(store, saga.Config{}, Fulfilment)
//	o.Attach(svc)
//
// Instances begin by an event (StartedBy), by a message within your transaction
// ([Start]), or here and now ([Execute]).
//
// # What it promises
//
//   - A transition is one transaction: the instance's new state, the mark that the
//     event was handled, the history, and the commands and timers it emits, in the
//     outbox. So an event changes an instance once, and what follows from it is
//     sent if and only if it did.
//   - An instance has one row and a revision. A transition that finds another
//     revision reads the instance again and starts over; that counts as no failure.
//   - Every instance ends [Completed] or [Compensated], or is [Stuck] and says so by
//     an event ([StuckAlerts]): nothing is dropped silently.
//   - Compensation runs in the reverse order of the steps, one after the other. A
//     step that failed has nothing to undo; one whose time was up may have, and is
//     compensated like one that was done. A participant must therefore take a
//     compensation for what it has never done, and refuse an action that comes
//     after its compensation: [Participant] does.
//     A function that is being called is waited for before its step is undone.
//   - After the [Pivot] nothing is compensated: steps are tried until they succeed.
//   - Timers are scheduled events of the outbox. An instance has one pending at a
//     time; a failing one holds up no other instance.
//   - Functions called by [Call] run outside of transactions, at least once. After a
//     crash the event that led to them comes again and so do they, with the same
//     key ([KeyOf]).
//
// # Events that come at the wrong time
//
//   - Before anything waits for it: kept, up to 100 an instance, and taken when
//     something does.
//   - Twice: the second is dropped by its id; a repetition under another id finds
//     that nothing waits for it.
//   - After its step's time was up: if the step is being retried it counts; if the
//     saga is being compensated it tells what there is to undo.
//   - After the end: nothing happens.
//   - Without an instance: the dead-letter topic, unless [Event.IfMissing] says
//     otherwise.
//
// # When functions of the definition fail
//
// Functions that make commands, apply events or decide must be functions of their
// arguments alone. If one panics, the instance is stuck, the event is kept, and
// [Orchestrator.Retry] takes it again when the program is mended.
//
// # Evolution
//
// Instances stay with the version of the definition that they began with; keep
// old versions registered until [Orchestrator.Count] and List show none of them.
// A definition that has changed under its version is refused at start
// ([Orchestrator.Check]); timeouts, retries and functions may change. The state's
// schema has a version of its own and is migrated when it is loaded ([Migrate]).
//
// # Testing
//
// Package sagatest runs a definition under virtual time, and under every crash,
// duplicate, reordering and timeout of a bounded run (sagatest.Explore).
package saga
