// Package millrace is the root of a library for event-driven microservices,
// built on Watermill. It holds no code; start with one of its packages:
//
//   - eventbus publishes and handles typed events on any broker; read its
//     documentation first. eventbus/sqlbus is the durable broker in an SQLite file,
//     eventbus/eventbustest the kit for your tests.
//   - outbox writes events in your database transaction and publishes them after it
//     committed.
//   - idempotency makes the effects of a handler happen once.
//   - saga runs processes that span services, and undoes them when they fail.
//   - resilience has retries, circuit breakers, timeouts and limits for functions,
//     handlers and clients.
//
// The directory examples has programs to run and to copy from, docs the guides
// and the reasons.
package millrace
