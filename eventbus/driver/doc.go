// Package driver is the seam between Millrace and a message broker.
//
// Users of the library need it only to name a capability or an error; they
// open brokers with eventbus.Open and never call a [Broker] themselves. Read
// on to write a driver.
//
// A driver is a package that registers an [Opener] for its URL schemes:
//
//	func init() { driver.Register("kafka", open) }
//
// The opener turns a URL into a [Broker], refusing every query parameter it
// does not know ([Params] does that). A Broker is a Watermill publisher that
// can also [Broker.Subscribe]; a [Consumer] pushes each [Delivery] into the
// subscription's handler and settles it by the [Result] it gets back.
//
// # What a driver owes
//
//   - Publish returns nil only after the broker has durably accepted every
//     message. If only some were accepted it returns a [*BatchError].
//   - Each group sees every event; inside a group each event goes to one member.
//   - What was not acknowledged is delivered again: after a nack, a crash, a
//     lost connection.
//   - Events of one key reach a group's handler one at a time and in publish
//     order; different keys side by side, up to Subscription.Concurrency.
//   - Payload and metadata arrive as they were published.
//   - A restarted group goes on after its last acknowledged event.
//   - Consumer.Run outlives a restart of the broker.
//
// What a broker can't do is left out of its [Capabilities]; nothing is
// emulated by halves. The suite in eventbustest checks every one of these
// statements; package membus is the reference implementation, and package
// dispatch does the hard part (order per key, concurrency across keys,
// contiguous acknowledgement) for drivers that read a log.
package driver
