package sqlbus

// schemaVersion is stored in millrace_meta. A change of the tables raises it
// and teaches provision to migrate what earlier versions wrote.
const schemaVersion = 1

// partitionCount is for new files; what counts is the number in millrace_meta.
const partitionCount = 32

// Times are microseconds since 1970 in UTC. Text columns hold the bytes of Go
// strings, valid UTF-8 or not.
var schema = []string{
	`CREATE TABLE millrace_meta (
	name TEXT PRIMARY KEY,
	value INTEGER NOT NULL
) WITHOUT ROWID`,

	// AUTOINCREMENT: a position is never given twice, whatever retention removed.
	`CREATE TABLE millrace_events (
	position INTEGER PRIMARY KEY AUTOINCREMENT,
	topic TEXT NOT NULL,
	partition INTEGER NOT NULL,
	key TEXT NOT NULL,
	id TEXT NOT NULL,
	metadata BLOB NOT NULL,
	payload BLOB NOT NULL,
	published_at INTEGER NOT NULL
)`,
	`CREATE INDEX millrace_events_read ON millrace_events (topic, partition, position)`,

	// Events published for later.
	`CREATE TABLE millrace_due (
	seq INTEGER PRIMARY KEY AUTOINCREMENT,
	due_at INTEGER NOT NULL,
	topic TEXT NOT NULL,
	partition INTEGER NOT NULL,
	key TEXT NOT NULL,
	id TEXT NOT NULL,
	metadata BLOB NOT NULL,
	payload BLOB NOT NULL
)`,
	`CREATE INDEX millrace_due_at ON millrace_due (due_at, seq)`,

	// Progress of each group: everything up to cursor is settled, or waits in
	// millrace_exceptions. The token changes with the owner.
	`CREATE TABLE millrace_groups (
	topic TEXT NOT NULL,
	group_name TEXT NOT NULL,
	partition INTEGER NOT NULL,
	cursor INTEGER NOT NULL,
	owner TEXT,
	token INTEGER NOT NULL,
	PRIMARY KEY (topic, group_name, partition)
) WITHOUT ROWID`,
	`CREATE TABLE millrace_members (
	topic TEXT NOT NULL,
	group_name TEXT NOT NULL,
	member TEXT NOT NULL,
	lease_until INTEGER NOT NULL,
	leaving INTEGER NOT NULL,
	PRIMARY KEY (topic, group_name, member)
) WITHOUT ROWID`,

	// Exceptions to the cursor of a group. With a due_at: the event is to be
	// delivered again then. Without: it is above the cursor and settled all the
	// same. The rows of the latter kind that are needed beyond redeliveries are
	// left by whoever gives a partition up, so that only a crash repeats events.
	`CREATE TABLE millrace_exceptions (
	topic TEXT NOT NULL,
	group_name TEXT NOT NULL,
	position INTEGER NOT NULL,
	partition INTEGER NOT NULL,
	attempt INTEGER NOT NULL,
	due_at INTEGER,
	PRIMARY KEY (topic, group_name, position)
) WITHOUT ROWID`,
	`CREATE INDEX millrace_exceptions_due ON millrace_exceptions (topic, group_name, due_at)`,
	`CREATE INDEX millrace_exceptions_position ON millrace_exceptions (position)`,
}
