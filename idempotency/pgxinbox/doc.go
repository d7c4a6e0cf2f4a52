// Package pgxinbox is the inbox of package idempotency for those who use pgx
// without database/sql. It is the same inbox, in the same table, and costs
// less: the mark travels with BEGIN, so that a handler needs no more round trips
// than it would without an inbox.
//
//	inbox := pgxinbox.New(pool)
//	defer inbox.Close()
//	err := inbox.Migrate(ctx)
//	svc.Add(inbox) // prunes old marks
//	...
//	eventbus.Subscribe(svc, OrdersPlaced, pgxinbox.Once(inbox,
//		func(ctx context.Context, tx pgx.Tx, e eventbus.Event[OrderPlaced]) error {
//			_, err := tx.Exec(ctx, "UPDATE ...")
//			return err
//		}))
//
// What it promises, how it fails and what it doesn't do is said in package
// idempotency.
//
// # PostgreSQL's log
//
// A duplicate that is not remembered in memory, and that comes out of the blue,
// shows as an error "duplicate key value violates unique constraint" in the log
// of the server. It is expected. Runs of duplicates, and events that the broker
// says it delivers again, are looked for first and leave none.
//
// # Prepared statements
//
// With pgx's default QueryExecMode two statements are prepared on each
// connection. With any other none is, as poolers of connections may need.
// Tracers of pgx don't see the mark and BEGIN of Once and Transact.
package pgxinbox
