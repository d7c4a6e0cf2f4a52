package sqlbus

import (
	"fmt"
	"strings"
)

// Dialect names a kind of database.
type Dialect string

// The databases that there are.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
	MySQL    Dialect = "mysql" // and MariaDB
)

// Schema returns the statements that create the tables of a bus, each ended by
// a semicolon, for those who create them with a tool of their own and open the
// bus with Config.NoProvision. It panics for an unknown dialect.
func Schema(d Dialect) string {
	statements := map[Dialect][]string{SQLite: schema, Postgres: postgresSchema, MySQL: mysqlSchema}[d]
	if statements == nil {
		panic(fmt.Sprintf("sqlbus: Schema of unknown dialect %q", d))
	}
	return strings.Join(append(statements[:len(statements):len(statements)], metaRows), ";\n\n") + ";\n"
}

// metaRows comes last: who finds it may rely on the tables.
var metaRows = fmt.Sprintf("INSERT INTO millrace_meta (name, value) VALUES ('schema', %d), ('partitions', %d)", schemaVersion, partitionCount)

// The tables are those of SQLite but for what follows. Columns that may hold any
// bytes are binary. Positions count per topic, and are handed out under a lock
// of the topic that is held until the commit: in PostgreSQL an advisory lock,
// since a row that is updated all the time collects dead versions while a long
// transaction runs elsewhere; in MySQL a row of millrace_topics. Nothing uses
// millrace_positions any more: a sequence goes back with its server.
// millrace_batches remembers the last transaction of every publisher, to tell
// what became of it when the connection broke.
var postgresSchema = []string{
	`CREATE TABLE millrace_meta (
	name text COLLATE "C" PRIMARY KEY,
	value bigint NOT NULL
)`,
	`CREATE SEQUENCE millrace_positions AS bigint`,
	`CREATE TABLE millrace_events (
	topic text COLLATE "C" NOT NULL,
	position bigint NOT NULL,
	partition integer NOT NULL,
	key bytea NOT NULL,
	id bytea NOT NULL,
	metadata bytea NOT NULL,
	payload bytea NOT NULL,
	published_at bigint NOT NULL,
	PRIMARY KEY (topic, position)
)`,
	`CREATE INDEX millrace_events_read ON millrace_events (topic, partition, position)`,
	`CREATE TABLE millrace_batches (
	id text COLLATE "C" PRIMARY KEY,
	written_at bigint NOT NULL,
	fence smallint NOT NULL
)`,
	`CREATE TABLE millrace_due (
	seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	due_at bigint NOT NULL,
	topic text COLLATE "C" NOT NULL,
	partition integer NOT NULL,
	key bytea NOT NULL,
	id bytea NOT NULL,
	metadata bytea NOT NULL,
	payload bytea NOT NULL
)`,
	`CREATE INDEX millrace_due_at ON millrace_due (due_at, seq)`,
	`CREATE INDEX millrace_due_topic ON millrace_due (topic, due_at, seq)`,
	`CREATE TABLE millrace_groups (
	topic text COLLATE "C" NOT NULL,
	group_name text COLLATE "C" NOT NULL,
	partition integer NOT NULL,
	cursor bigint NOT NULL,
	owner text COLLATE "C",
	token bigint NOT NULL,
	PRIMARY KEY (topic, group_name, partition)
) WITH (fillfactor = 50)`,
	`CREATE TABLE millrace_members (
	topic text COLLATE "C" NOT NULL,
	group_name text COLLATE "C" NOT NULL,
	member text COLLATE "C" NOT NULL,
	lease_until bigint NOT NULL,
	leaving smallint NOT NULL,
	PRIMARY KEY (topic, group_name, member)
) WITH (fillfactor = 50)`,
	`CREATE TABLE millrace_exceptions (
	topic text COLLATE "C" NOT NULL,
	group_name text COLLATE "C" NOT NULL,
	position bigint NOT NULL,
	partition integer NOT NULL,
	attempt integer NOT NULL,
	due_at bigint,
	PRIMARY KEY (topic, group_name, position)
)`,
	`CREATE INDEX millrace_exceptions_due ON millrace_exceptions (topic, group_name, due_at)`,
	`CREATE INDEX millrace_exceptions_position ON millrace_exceptions (topic, position)`,
}

// Indexes are part of the tables because MySQL can't create them if missing.
var mysqlSchema = []string{
	"CREATE TABLE IF NOT EXISTS millrace_meta (\n" +
		"	name VARBINARY(64) NOT NULL PRIMARY KEY,\n" +
		"	value BIGINT NOT NULL\n" +
		") ENGINE=InnoDB",
	"CREATE TABLE IF NOT EXISTS millrace_topics (\n" +
		"	topic VARBINARY(249) NOT NULL PRIMARY KEY,\n" +
		"	position BIGINT NOT NULL\n" +
		") ENGINE=InnoDB",
	"CREATE TABLE IF NOT EXISTS millrace_events (\n" +
		"	topic VARBINARY(249) NOT NULL,\n" +
		"	position BIGINT NOT NULL,\n" +
		"	`partition` INT NOT NULL,\n" +
		"	`key` LONGBLOB NOT NULL,\n" +
		"	id LONGBLOB NOT NULL,\n" +
		"	metadata LONGBLOB NOT NULL,\n" +
		"	payload LONGBLOB NOT NULL,\n" +
		"	published_at BIGINT NOT NULL,\n" +
		"	PRIMARY KEY (topic, position),\n" +
		"	KEY millrace_events_read (topic, `partition`, position)\n" +
		") ENGINE=InnoDB",
	"CREATE TABLE IF NOT EXISTS millrace_batches (\n" +
		"	id VARBINARY(64) NOT NULL PRIMARY KEY,\n" +
		"	written_at BIGINT NOT NULL,\n" +
		"	fence TINYINT NOT NULL\n" +
		") ENGINE=InnoDB",
	"CREATE TABLE IF NOT EXISTS millrace_due (\n" +
		"	seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,\n" +
		"	due_at BIGINT NOT NULL,\n" +
		"	topic VARBINARY(249) NOT NULL,\n" +
		"	`partition` INT NOT NULL,\n" +
		"	`key` LONGBLOB NOT NULL,\n" +
		"	id LONGBLOB NOT NULL,\n" +
		"	metadata LONGBLOB NOT NULL,\n" +
		"	payload LONGBLOB NOT NULL,\n" +
		"	KEY millrace_due_at (due_at, seq),\n" +
		"	KEY millrace_due_topic (topic, due_at, seq)\n" +
		") ENGINE=InnoDB",
	"CREATE TABLE IF NOT EXISTS millrace_groups (\n" +
		"	topic VARBINARY(249) NOT NULL,\n" +
		"	group_name VARBINARY(249) NOT NULL,\n" +
		"	`partition` INT NOT NULL,\n" +
		"	`cursor` BIGINT NOT NULL,\n" +
		"	owner VARBINARY(64),\n" +
		"	token BIGINT NOT NULL,\n" +
		"	PRIMARY KEY (topic, group_name, `partition`)\n" +
		") ENGINE=InnoDB",
	"CREATE TABLE IF NOT EXISTS millrace_members (\n" +
		"	topic VARBINARY(249) NOT NULL,\n" +
		"	group_name VARBINARY(249) NOT NULL,\n" +
		"	member VARBINARY(64) NOT NULL,\n" +
		"	lease_until BIGINT NOT NULL,\n" +
		"	leaving TINYINT NOT NULL,\n" +
		"	PRIMARY KEY (topic, group_name, member)\n" +
		") ENGINE=InnoDB",
	"CREATE TABLE IF NOT EXISTS millrace_exceptions (\n" +
		"	topic VARBINARY(249) NOT NULL,\n" +
		"	group_name VARBINARY(249) NOT NULL,\n" +
		"	position BIGINT NOT NULL,\n" +
		"	`partition` INT NOT NULL,\n" +
		"	attempt INT NOT NULL,\n" +
		"	due_at BIGINT,\n" +
		"	PRIMARY KEY (topic, group_name, position),\n" +
		"	KEY millrace_exceptions_due (topic, group_name, due_at),\n" +
		"	KEY millrace_exceptions_position (topic, position)\n" +
		") ENGINE=InnoDB",
}
