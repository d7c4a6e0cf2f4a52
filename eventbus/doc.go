// Package eventbus publishes and handles typed events on any broker.
//
// # Topics
//
// A [Topic] names a stream of events and their Go type. Declare it next to the
// type; KeyBy says which events must stay in order:
//
//	type OrderPlaced struct{ OrderID string; Lines []Line }
//
//	var OrdersPlaced = eventbus.NewTopic[OrderPlaced]("orders.placed",
//		eventbus.KeyBy(func(e OrderPlaced) string { return e.OrderID }))
//
// # The bus
//
// [Open] connects to the broker that a URL names; an empty one means the broker
// in memory, which is there for tests and is the reference for all others.
//
//	bus, err := eventbus.Open(ctx, os.Getenv("EVENTBUS_URL"))
//	...
//	err = OrdersPlaced.Publish(ctx, bus, OrderPlaced{...})
//
// Publish takes any Watermill publisher: a bus, an outbox within a transaction,
// an adapter of your own. It returns nil only after the target has taken
// responsibility for the event.
//
// # Services
//
// A [Service] is a consumer group with its handlers, which are plain typed
// functions. Run starts everything and, when its context ends, stops it in
// order: no new events, running handlers finish, runners such as an outbox relay
// stop last.
//
//	svc := eventbus.NewService("billing", bus)
//	eventbus.Subscribe(svc, OrdersPlaced, func(ctx context.Context, e eventbus.Event[OrderPlaced]) error {
//		...
//	})
//	err := svc.Run(ctx)
//
// # When a handler fails
//
// Every event is delivered at least once. A handler that returns an error or
// panics is tried again in place a few times, then after growing delays, then
// the event goes to the service's dead-letter topic with the cause, the number
// of attempts and the original bytes; see [RetryPolicy]. [Permanent] skips the
// retries, [RetryAfter] asks for a delay. A dead letter can be read, edited and
// sent back: [ReadDeadLetter].
//
// A handler may see an event twice. Package idempotency makes its effects happen
// once, package outbox makes what it publishes part of its transaction. Events
// published while handling one have ids derived from it, so that a handler that
// runs again repeats itself exactly and every inbox downstream drops the
// repeats.
//
// # On the wire
//
// An event is a CloudEvents 1.0 event in binary mode: see [Attributes]. Foreign
// events in structured mode, and plain payloads without any attribute, can be
// read too. Payloads are JSON unless a topic has another [Codec].
//
// # Watermill
//
// [FromWatermill] makes a Bus of any Watermill adapter, [Bus.Subscriber] makes a
// Watermill subscriber of a Bus, [Service.Use] takes Watermill middlewares. The
// Service runs beside Watermill's Router, not on it: docs/decisions/0001 says
// why.
package eventbus
