// Package pgxoutbox is package outbox for services that use pgx without
// database/sql; for those that use it through database/sql there is [Connector].
//
//	box := pgxoutbox.New(pool)
//	err := box.Migrate(ctx)
//	svc.Add(box.Relay(bus))
//	...
//	err = box.Transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
//		// business writes on tx ...
//		return OrdersPlaced.Publish(ctx, box.In(tx), OrderPlaced{...})
//	})
//
// [Outbox] embeds an outbox.Outbox, so all that does not concern a transaction
// is to be found there: Stats, Parked, Unpark, Replay. What it promises is the same.
//
// # Round trips
//
// Events of a transaction of [Outbox.Transact], or of package pgxinbox, are sent with
// its COMMIT, or before its next statement: they take no round trip. An error of
// writing them is that of the COMMIT or of the statement. Where pgx is told not to
// prepare statements, for a pooler, and in other transactions, they are sent at once.
//
// A pgx.Batch is sent at once and is one transaction. [Outbox.InBatch] puts the
// event behind the statements that are in it:
//
//	b := &pgx.Batch{}
//	b.Queue("INSERT INTO orders ...", ...)
//	err := OrdersPlaced.Publish(ctx, box.InBatch(b), OrderPlaced{...})
//	err = box.Send(ctx, b)
//
// Business rows, event and commit take one round trip together, one less than
// begin and commit take alone.
//
// # Waking the relay
//
// A relay wakes at once when Transact or Send commit in the same process. In
// others it learns of it by a NOTIFY, that is sent after the commit, at most
// every 10 ms by each process: within the transaction it would serialise all
// commits of the database. LISTEN takes one connection beside those of the pool for
// as long as the relay runs. Behind a pooler in transaction mode it does not work, and
// polling remains.
package pgxoutbox
