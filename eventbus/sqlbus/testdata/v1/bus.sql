-- A file as version 1 writes it. Never edit: later versions must read it.
CREATE TABLE millrace_meta (
	name TEXT PRIMARY KEY,
	value INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE millrace_events (
	position INTEGER PRIMARY KEY AUTOINCREMENT,
	topic TEXT NOT NULL,
	partition INTEGER NOT NULL,
	key TEXT NOT NULL,
	id TEXT NOT NULL,
	metadata BLOB NOT NULL,
	payload BLOB NOT NULL,
	published_at INTEGER NOT NULL
);
CREATE INDEX millrace_events_read ON millrace_events (topic, partition, position);
CREATE TABLE millrace_due (
	seq INTEGER PRIMARY KEY AUTOINCREMENT,
	due_at INTEGER NOT NULL,
	topic TEXT NOT NULL,
	partition INTEGER NOT NULL,
	key TEXT NOT NULL,
	id TEXT NOT NULL,
	metadata BLOB NOT NULL,
	payload BLOB NOT NULL
);
CREATE INDEX millrace_due_at ON millrace_due (due_at, seq);
CREATE TABLE millrace_groups (
	topic TEXT NOT NULL,
	group_name TEXT NOT NULL,
	partition INTEGER NOT NULL,
	cursor INTEGER NOT NULL,
	owner TEXT,
	token INTEGER NOT NULL,
	PRIMARY KEY (topic, group_name, partition)
) WITHOUT ROWID;
CREATE TABLE millrace_members (
	topic TEXT NOT NULL,
	group_name TEXT NOT NULL,
	member TEXT NOT NULL,
	lease_until INTEGER NOT NULL,
	leaving INTEGER NOT NULL,
	PRIMARY KEY (topic, group_name, member)
) WITHOUT ROWID;
CREATE TABLE millrace_exceptions (
	topic TEXT NOT NULL,
	group_name TEXT NOT NULL,
	position INTEGER NOT NULL,
	partition INTEGER NOT NULL,
	attempt INTEGER NOT NULL,
	due_at INTEGER,
	PRIMARY KEY (topic, group_name, position)
) WITHOUT ROWID;
CREATE INDEX millrace_exceptions_due ON millrace_exceptions (topic, group_name, due_at);
CREATE INDEX millrace_exceptions_position ON millrace_exceptions (position);
INSERT INTO millrace_meta (name, value) VALUES ('schema', 1), ('partitions', 32);
INSERT INTO millrace_events (position, topic, partition, key, id, metadata, payload, published_at) VALUES (1, 'orders', 13, 'order-1', 'id-1', x'01020F63655F706172746974696F6E6B6579076F726465722D31046E6F74650762696C6C656400', x'636F6E73756D6564', 1700000000000000);
INSERT INTO millrace_events (position, topic, partition, key, id, metadata, payload, published_at) VALUES (2, 'orders', 13, 'order-1', 'id-2', x'01020F63655F706172746974696F6E6B6579076F726465722D31046E6F74650762696C6C656400', x'616761696E', 1700000000000000);
INSERT INTO millrace_events (position, topic, partition, key, id, metadata, payload, published_at) VALUES (3, 'orders', 13, 'order-1', 'id-3', x'01020F63655F706172746974696F6E6B6579076F726465722D31046E6F74650762696C6C656400', x'6F70656E', 1700000000000000);
INSERT INTO millrace_events (position, topic, partition, key, id, metadata, payload, published_at) VALUES (4, 'orders', 13, 'order-1', 'id-4', x'01020F63655F706172746974696F6E6B6579076F726465722D31046E6F74650762696C6C656400', x'736574746C6564', 1700000000000000);
INSERT INTO millrace_due (due_at, topic, partition, key, id, metadata, payload) VALUES (1700000001000000, 'orders', 13, 'order-1', 'id-5', x'01020F63655F706172746974696F6E6B6579076F726465722D31046E6F74650762696C6C656400', x'647565');
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 0, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 1, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 2, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 3, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 4, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 5, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 6, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 7, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 8, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 9, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 10, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 11, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 12, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 13, 2, '4711-GONE', 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 14, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 15, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 16, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 17, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 18, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 19, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 20, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 21, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 22, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 23, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 24, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 25, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 26, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 27, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 28, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 29, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 30, 0, NULL, 7);
INSERT INTO millrace_groups (topic, group_name, partition, cursor, owner, token) VALUES ('orders', 'billing', 31, 0, NULL, 7);
INSERT INTO millrace_members (topic, group_name, member, lease_until, leaving) VALUES ('orders', 'billing', '4711-GONE', 1700000002000000, 0);
INSERT INTO millrace_exceptions (topic, group_name, position, partition, attempt, due_at) VALUES ('orders', 'billing', 2, 13, 3, 1700000003000000), ('orders', 'billing', 4, 13, 0, NULL);
