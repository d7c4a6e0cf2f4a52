// Package eventbustest helps to test programs that use eventbus, and drivers
// for it. It needs the standard library only.
//
// # Testing your handlers
//
// [New] gives a bus in memory that remembers what was published and handled.
// Start your service on it, publish, and wait for what should follow:
//
//	h := eventbustest.New(t)
//	svc := billing.NewService(h.Bus())
//	h.Start(svc)
//	OrdersPlaced.Publish(ctx, h.Bus(), OrderPlaced{OrderID: "o-1"})
//	billed := eventbustest.AwaitPublished(h, OrdersBilled, func(e eventbus.Event[OrderBilled]) bool {
//		return e.Data.OrderID == "o-1"
//	})
//
// Waiting ends when the condition holds, and fails the test when nothing has
// happened on the bus for a while, never by a fixed sleep. Inside
// testing/synctest time is virtual, so a reminder that is due in thirty days is
// tested in a millisecond; see the example of Harness.
//
// # Trying what goes wrong
//
// [Faults] delivers events twice, late or out of order and loses
// acknowledgements as a crash would, at rates you choose, decided by a seed that
// the test prints. A handler whose effects must happen once has to pass it.
//
// # Testing a driver
//
// [Run] is the conformance suite: what package driver promises, one row per
// rule. Every driver of this module passes it.
package eventbustest
