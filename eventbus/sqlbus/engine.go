package sqlbus

import "context"

// engine is a database as the bus needs it. Its methods are safe for
// concurrent use.
type engine interface {
	facts() *store

	// watch is called once, before anything else is. From then on the engine
	// tells b of what other processes write.
	watch(b *Broker)

	// do runs op in a transaction that others of the same lane may share, and
	// returns its result once it is durable. op may run again after a rollback,
	// so it must not add to anything outside of the database. If ctx ends first
	// do returns the cause; what has not been sent to the database by then is
	// never run, what was sent may be committed.
	do(ctx context.Context, lane string, op func(*session) error) error

	// publish commits rows, all or none. Positions in a topic become visible in
	// their order. What ctx means is said at do. It does not keep rows.
	publish(ctx context.Context, topic string, rows []row, size int) error

	// moveDue moves some events that are due into the log. It may return before
	// all are that it began with.
	moveDue(ctx context.Context) error

	// tidy removes what publishers left behind.
	tidy(ctx context.Context) error

	// explain puts the name of the database and, where it is terse, what the
	// error means before err.
	explain(err error) error

	// close waits for what is under way and releases all there is.
	close() error
}

// store is what is known of an open database.
type store struct {
	name       string // for people: no secrets
	dialect    *dialect
	read       *session
	partitions int
	maxRow     int // bytes of an event with its metadata; 0: no matter
}
