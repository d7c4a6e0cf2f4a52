// Package membus is the in-memory broker behind "memory:" URLs. Its behaviour
// is the reference for every other driver.
//
// It is made of mutexes, channels and package time only, so it runs inside
// testing/synctest: a delay of thirty days passes in a microsecond of virtual
// time. Use it for unit tests and for programs of one process whose events may
// be lost with the process.
//
// # URL
//
//	memory:?buffer=8192&buffer_bytes=67108864&max_payload=1048576
//
// Each Open gives a broker of its own. See [Config] for the parameters.
//
// # Delivery
//
// At least once. Publish returns when the event is in every group's buffer.
//
// # Order
//
// Events of one key are handled one at a time in publish order, also across
// members, retries in place and redeliveries that hold the key. Events without
// a key have no order.
//
// # Groups
//
// A group exists from its first Subscribe until Close and keeps its events
// while it has no member. A new group starts with the oldest event kept; the
// broker keeps the last Buffer events of a topic for that, and warns in the log
// when it lets one go that no group has seen.
//
// # Redelivery
//
// A nack delivers again after its delay, counted exactly.
//
// # Limits
//
// Payloads up to 1 MiB by default. A topic whose slowest group has Buffer
// events outstanding makes Publish wait until the context of the message ends:
// handlers that publish into a topic that they also hold up can deadlock each
// other, so leave room for the largest burst.
//
// # Durability
//
// None: it says so in its Capabilities.
package membus
