// Package sqlresilience runs transactions and opens connections of database/sql
// through policies of package resilience. It imports no driver.
//
//	err := sqlresilience.Transact(ctx, db, policy, &sql.TxOptions{Isolation: sql.LevelSerializable},
//		func(ctx context.Context, tx *sql.Tx) error {
//			...
//		})
//
// # Transactions
//
// A database that keeps transactions apart rolls one of two back when they are in
// each other's way: a failed serialization, a deadlock, a lock that was waited for
// too long. Nothing is wrong with it, and the whole of it, from what it read on,
// is to be run again. Transact does that with a policy that has a Retry.
//
// Only what the database says will pass is tried again, see Classify. Any other
// error of the function is its own: it ends the call, is no failure to a breaker,
// and is returned as it is.
//
// # A COMMIT without an answer
//
// When the connection is lost during COMMIT nobody knows whether the transaction
// was committed. Running it again might do everything twice, so it is not; the
// error is an *OutcomeUnknownError. It says what to do about it.
//
// # Statements outside of transactions
//
// There is deliberately nothing here that repeats a single statement behind the
// caller's back, in a driver.Connector or elsewhere. A statement outside of a
// transaction commits by itself, so each one that loses its connection has the
// outcome of a COMMIT without an answer; and one inside of a transaction can't be
// repeated alone, for the transaction it belonged to is gone. Put statements that
// matter into a Transact. database/sql itself repeats those that a driver says
// were never sent (driver.ErrBadConn), and that is as far as it can go.
//
// # Connections
//
// NewConnector has connections opened through a policy, for sql.OpenDB: with a
// Timeout a dead server is noticed, with a Retry a restart goes unnoticed, and
// with a CircuitBreaker callers hear at once that the database is away instead of
// queueing for it.
package sqlresilience
