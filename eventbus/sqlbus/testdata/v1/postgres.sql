CREATE TABLE millrace_meta (
	name text COLLATE "C" PRIMARY KEY,
	value bigint NOT NULL
);

CREATE SEQUENCE millrace_positions AS bigint;

CREATE TABLE millrace_events (
	topic text COLLATE "C" NOT NULL,
	position bigint NOT NULL,
	partition integer NOT NULL,
	key bytea NOT NULL,
	id bytea NOT NULL,
	metadata bytea NOT NULL,
	payload bytea NOT NULL,
	published_at bigint NOT NULL,
	PRIMARY KEY (topic, position)
);

CREATE INDEX millrace_events_read ON millrace_events (topic, partition, position);

CREATE TABLE millrace_batches (
	id text COLLATE "C" PRIMARY KEY,
	written_at bigint NOT NULL,
	fence smallint NOT NULL
);

CREATE TABLE millrace_due (
	seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	due_at bigint NOT NULL,
	topic text COLLATE "C" NOT NULL,
	partition integer NOT NULL,
	key bytea NOT NULL,
	id bytea NOT NULL,
	metadata bytea NOT NULL,
	payload bytea NOT NULL
);

CREATE INDEX millrace_due_at ON millrace_due (due_at, seq);

CREATE INDEX millrace_due_topic ON millrace_due (topic, due_at, seq);

CREATE TABLE millrace_groups (
	topic text COLLATE "C" NOT NULL,
	group_name text COLLATE "C" NOT NULL,
	partition integer NOT NULL,
	cursor bigint NOT NULL,
	owner text COLLATE "C",
	token bigint NOT NULL,
	PRIMARY KEY (topic, group_name, partition)
) WITH (fillfactor = 50);

CREATE TABLE millrace_members (
	topic text COLLATE "C" NOT NULL,
	group_name text COLLATE "C" NOT NULL,
	member text COLLATE "C" NOT NULL,
	lease_until bigint NOT NULL,
	leaving smallint NOT NULL,
	PRIMARY KEY (topic, group_name, member)
) WITH (fillfactor = 50);

CREATE TABLE millrace_exceptions (
	topic text COLLATE "C" NOT NULL,
	group_name text COLLATE "C" NOT NULL,
	position bigint NOT NULL,
	partition integer NOT NULL,
	attempt integer NOT NULL,
	due_at bigint,
	PRIMARY KEY (topic, group_name, position)
);

CREATE INDEX millrace_exceptions_due ON millrace_exceptions (topic, group_name, due_at);

CREATE INDEX millrace_exceptions_position ON millrace_exceptions (topic, position);

INSERT INTO millrace_meta (name, value) VALUES ('schema', 1), ('partitions', 32);
