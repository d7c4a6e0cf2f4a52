CREATE TABLE IF NOT EXISTS millrace_meta (
	name VARBINARY(64) NOT NULL PRIMARY KEY,
	value BIGINT NOT NULL
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS millrace_topics (
	topic VARBINARY(249) NOT NULL PRIMARY KEY,
	position BIGINT NOT NULL
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS millrace_events (
	topic VARBINARY(249) NOT NULL,
	position BIGINT NOT NULL,
	`partition` INT NOT NULL,
	`key` LONGBLOB NOT NULL,
	id LONGBLOB NOT NULL,
	metadata LONGBLOB NOT NULL,
	payload LONGBLOB NOT NULL,
	published_at BIGINT NOT NULL,
	PRIMARY KEY (topic, position),
	KEY millrace_events_read (topic, `partition`, position)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS millrace_batches (
	id VARBINARY(64) NOT NULL PRIMARY KEY,
	written_at BIGINT NOT NULL,
	fence TINYINT NOT NULL
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS millrace_due (
	seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
	due_at BIGINT NOT NULL,
	topic VARBINARY(249) NOT NULL,
	`partition` INT NOT NULL,
	`key` LONGBLOB NOT NULL,
	id LONGBLOB NOT NULL,
	metadata LONGBLOB NOT NULL,
	payload LONGBLOB NOT NULL,
	KEY millrace_due_at (due_at, seq),
	KEY millrace_due_topic (topic, due_at, seq)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS millrace_groups (
	topic VARBINARY(249) NOT NULL,
	group_name VARBINARY(249) NOT NULL,
	`partition` INT NOT NULL,
	`cursor` BIGINT NOT NULL,
	owner VARBINARY(64),
	token BIGINT NOT NULL,
	PRIMARY KEY (topic, group_name, `partition`)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS millrace_members (
	topic VARBINARY(249) NOT NULL,
	group_name VARBINARY(249) NOT NULL,
	member VARBINARY(64) NOT NULL,
	lease_until BIGINT NOT NULL,
	leaving TINYINT NOT NULL,
	PRIMARY KEY (topic, group_name, member)
) ENGINE=InnoDB;

CREATE TABLE IF NOT EXISTS millrace_exceptions (
	topic VARBINARY(249) NOT NULL,
	group_name VARBINARY(249) NOT NULL,
	position BIGINT NOT NULL,
	`partition` INT NOT NULL,
	attempt INT NOT NULL,
	due_at BIGINT,
	PRIMARY KEY (topic, group_name, position),
	KEY millrace_exceptions_due (topic, group_name, due_at),
	KEY millrace_exceptions_position (topic, position)
) ENGINE=InnoDB;

INSERT INTO millrace_meta (name, value) VALUES ('schema', 1), ('partitions', 32);
