// Package idempotency makes the effects of a handler happen once, although every
// event is delivered at least once.
//
// # The inbox
//
// Brokers redeliver: after a crash, a lost acknowledgement, a rebalance. An
// [Inbox] remembers in the service's own database which events have been
// handled, and [Once] writes that mark in the same transaction as the effects:
//
//	inbox := idempotency.NewInbox(db, idempotency.Postgres) // or MySQL, SQLite
//	err := inbox.Migrate(ctx)
//	svc.Add(inbox) // prunes old marks
//	...
//	eventbus.Subscribe(svc, OrdersPlaced, idempotency.Once(inbox,
//		func(ctx context.Context, tx *sql.Tx, e eventbus.Event[OrderPlaced]) error {
//			// business writes on tx ...
//			return OrdersBilled.Publish(ctx, box.In(tx), OrderBilled{...})
//		}))
//
// [Inbox.Transact] is the same without types, for commands, files, messages of a
// plain Watermill router and whatever else has an id. [OnceBatch] and
// [Inbox.Batch] handle several events in one transaction, and undo alone those
// that fail. Those who run the transaction themselves call [Inbox.Mark] in it.
// Package pgxinbox is the same for pgx without database/sql, and needs a round
// trip less.
//
// # What it promises
//
//   - All effects of h on tx, events published to an outbox in tx included, are
//     committed exactly once per consumer group, source and id.
//   - A handler that fails runs again: its mark is rolled back with its writes.
//     The same goes for a panic and for a commit that fails, which is an error.
//   - Of concurrent deliveries of one event one runs; the others wait for it and
//     are duplicates if it commits, or run if it does not.
//   - A duplicate is acknowledged without h being called and commits nothing.
//   - Ids are compared byte by byte, whatever they hold and however long they are.
//
// It can't promise this for effects outside of the transaction, such as a mail
// that h sends or a charge at a payment provider. For those there are leased
// claims with [Guard] and [Leased], with promises of their own.
//
// # How it fails
//
// Errors of h are returned as they are, for the retry policy to read; so are
// deadlocks and serialization failures that it ran into. Those before h was
// called are tried again at once. Other errors of the database are wrapped and
// may be retried. If the answer to COMMIT is lost, that is an error too, and the
// next delivery finds out whether there is a mark. An event without an id, or one
// that was not delivered to a consumer group, is a permanent error: nothing
// would tell its repetitions apart.
//
// # Memory
//
// The last 8192 events ([Recent]) are remembered in memory as well, once their
// commit has succeeded, so that a duplicate of one of them costs nothing. If the
// database is set back, to a backup or to a replica that lacks commits, restart
// the service: it remembers events that the database has forgotten.
//
// # Pruning
//
// Marks are kept for 30 days ([Retention]). An event that comes back later than
// that is handled again, so keep them longer than a dead letter may wait. Add the
// inbox to the service as a runner and it deletes old marks, a thousand at a
// time; or call [Inbox.Prune].
//
// # Isolation
//
// Transactions have the isolation level that the database, or the connection,
// has by default. The mark does its work at each of them.
//
// # SQLite
//
// Open the database as package outbox says: WAL, a busy timeout, immediate
// transactions. There is one writer at a time, so handlers run one after the
// other from their first statement on; keep slow calls to other services out of
// them. A transaction begun within h on the same database waits for itself and
// fails after some seconds.
package idempotency
