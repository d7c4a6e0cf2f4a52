// Package outbox publishes events if and only if a database transaction commits.
//
// A service that writes to its database and then publishes may crash in
// between; one that publishes first may fail to write. Here the event is a row
// that commits with the rest, and a relay moves it to the broker afterwards.
//
// # Writing
//
// [New] binds an outbox to a database, Migrate makes its tables. In gives a
// Watermill publisher that lives within a transaction, to be published to like
// any other:
//
//	box := outbox.New(db, outbox.Postgres) // or MySQL, SQLite
//	err := box.Migrate(ctx)
//	...
//	err = box.Transact(ctx, func(ctx context.Context, tx *sql.Tx) error {
//		// business writes on tx ...
//		return OrdersPlaced.Publish(ctx, box.In(tx), OrderPlaced{...})
//	})
//
// A transaction of your own does as well; call [Outbox.Poke] after its commit,
// or let the relay find the event at its next poll. Those of other packages than
// database/sql go through [Outbox.Via]; for pgx there is package pgxoutbox. Within a
// handler,
// idempotency.Once begins the transaction. An event with a due time
// (eventbus.WithDelay) is kept beside the log and moved in when it is due,
// whatever the broker can do; its order is that of its due time.
//
// # Publishing
//
// A [Relay] is a runner for a service, or for a goroutine of your own:
//
//	svc.Add(box.Relay(bus))
//
// It publishes in batches to any Watermill publisher, keys side by side, with
// the original ids, metadata and payloads. Any number of relays may run in any
// processes: one is active, the others stand by.
//
// # What it promises
//
//   - An event of a committed transaction is published at least once, one of a
//     rolled-back transaction never. Neither waits for other transactions.
//   - Events of one topic and key are published one after the other, in commit
//     order. Events without a key have no order.
//   - A crash at any instant repeats events, in the order of their key, and never
//     skips one. What may be repeated is what was published in the last 20 ms or
//     so, more if the database was too busy to record it. Consumers drop the
//     repeats by their ids: see package idempotency.
//   - Two relays don't publish side by side. The active one holds a lease and
//     stops a fifth before that could end; all it writes is conditional on a
//     token that rises with each owner. What no lease can prevent is a Publish
//     that goes on after its context has ended.
//   - When a relay is stopped, another takes over within a second; when it dies,
//     within its [Lease].
//
// # When the broker refuses
//
// A row that the broker refuses is told from a broker that is down:
//
//   - An error marked permanent (eventbus.Permanent: too large, bad name) parks
//     the row at once. In a *driver.BatchError every message has its own verdict.
//   - When a batch fails as a whole its rows are tried again one by one.
//   - A row that fails alone is tried again after 50 ms, doubled from failure to
//     failure up to 1 s, while its key waits. The first failure counts as an
//     attempt, each further one only if the broker has accepted something else
//     since the last. After 10 attempts ([Attempts]) the row is parked.
//     An error that asks for a longer pause by RetryAfter() time.Duration gets it, up
//     to 30 s; one with Rejected() bool, from a circuit breaker around the publisher,
//     never counts.
//   - When three different rows or batches fail and nothing is accepted in between,
//     the broker counts as down. One row at a time is tried then, every 50 ms to 3 s,
//     topics that have not failed yet first. Nothing is accepted, so no attempts
//     count, for however long.
//   - When the relay holds as many rows as it may ([InFlight]) and all fail, it looks
//     further down the log for an event of a topic that it holds nothing of, so
//     that a topic which is refused as a whole does not stop the others.
//   - A row that fails while there is nothing else to publish can't be told from an
//     outage and is retried for as long as that is so.
//
// A parked row keeps its error and waits: [Outbox.Parked], [Outbox.Unpark]. Its
// key goes on without it unless the relay has the option [ParkKey]; then later
// events of the key park behind it and come back with it.
//
// # When the database fails
//
// Publishing within a transaction returns the error. The relay logs and
// retries; while it can't record progress it reads no further, so that little
// is repeated. If it can't renew its lease in time it stops publishing.
//
// # PostgreSQL and MySQL
//
// Positions in the log are handed out before transactions commit. The relay
// publishes what it sees, remembers which positions below were missing, looks for
// them at every read, and forgets them when nobody can fill them any more; how it
// knows is in docs/decisions/0008-a-gap-aware-cursor.md. Commit order within a key
// is that of transactions which take turns, because they lock the same row before
// they publish.
//
// # SQLite
//
// Needs version 3.35 and any database/sql driver. Open a file with WAL, a busy
// timeout and immediate transactions; with modernc.org/sqlite:
//
//	file:PATH?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate
//
// With synchronous(NORMAL) a power failure may lose the latest commits, events
// and business rows alike. SQLite has one writer at a time; the transactions of
// Transact, of idempotency.Once and of the relay on the same *sql.DB queue up for it
// in the order they came. Prefer them to transactions of your own in tight
// loops, behind which others may wait for seconds.
//
// # Tables
//
// Schema returns the DDL. With the default prefix: millrace_outbox is the log,
// an append-only table; millrace_outbox_scheduled
// holds what is due later, millrace_outbox_parked what was refused,
// millrace_outbox_relay the lease, the token, and the position up to which everything
// is published but what is missing. Published rows are deleted soon after, or kept
// for a [Retention], for Replay, in steps of 1000. No statement that is
// repeated scans what is kept or deleted.
package outbox
