// Package watermillsql lets programs that use Watermill's SQL publisher and
// subscriber (watermill-sql/v3) share topics with a bus of package sqlbus on
// PostgreSQL, MySQL or MariaDB, in both directions.
//
// A publisher takes a [PostgresSchema] or [MySQLSchema] as its schema adapter. A
// subscriber takes one as well, and [PostgresOffsets] or [MySQLOffsets]. None of
// them creates tables: open a bus on the database once, or run the statements of
// sqlbus.Schema.
//
// # Publishing
//
// Events are ordered by the key in their metadata (driver.MetadataKey) and may be
// due later (driver.MetadataDue). A publisher may be made of a *sql.Tx, so that
// events become visible with its commit.
//
// On PostgreSQL, publishing takes the lock of the topic, which is held until the
// transaction ends. So a transaction that goes on for long afterwards makes all
// other publishers of the topic wait that long: publish last, or use an outbox.
// A statement that waited for that lock fails with a division by zero if the
// server's clock was set back meanwhile: try again.
// Consumers of the bus find out by polling, within a quarter of a second.
//
// On MySQL one statement can't both take positions and insert, so events go to
// the table of those that are due, from where any process that has a bus open on
// the database moves them into the log. That takes up to a tenth of a second, in
// which an event published by the bus itself may overtake; while no such process
// runs, it does not happen. What is committed when it looks, it moves in order of
// the statements. So events of transactions that don't overlap are in order, and
// those of one transaction; of transactions that overlap, the one that commits
// first may come second. No lock is held meanwhile.
//
// # Subscribing
//
// A consumer group of a subscriber is one of the bus: retention waits for it, and
// sqlbus.Broker.RemoveGroup and Seek apply to it. It reads the log as one sequence, so
// its members take turns. Don't let consumers of the bus and subscribers of
// Watermill into one group at a time; one after the other is fine, apart from
// what consumers of the bus left settled out of turn, which comes again.
package watermillsql
