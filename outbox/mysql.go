package outbox

// Positions come from AUTO_INCREMENT, so transactions commit in another order
// than that of their positions; see gaps.go.
var mysqlFlavour = flavour{
	schema: mysqlSchema,
	// Not unix_timestamp(now(3)), which is an hour off when summer time ends.
	now:     `timestampdiff(MICROSECOND, '1970-01-01', utc_timestamp(3)) DIV 1000`,
	integer: "SIGNED",
	key:     "`key`",
	fence:   `SELECT token FROM {p}_relay WHERE singleton = 1 AND token = ? FOR UPDATE`,
}

const mysqlSchema = `
CREATE TABLE IF NOT EXISTS {p} (
  position   BIGINT         NOT NULL AUTO_INCREMENT PRIMARY KEY,
  created_at BIGINT         NOT NULL,
  id         LONGBLOB       NOT NULL,
  topic      VARBINARY(249) NOT NULL,
  {key}      LONGBLOB       NOT NULL,
  metadata   LONGBLOB       NOT NULL,
  payload    LONGBLOB       NOT NULL
) ENGINE=InnoDB
---
CREATE TABLE IF NOT EXISTS {p}_scheduled (
  position   BIGINT         NOT NULL AUTO_INCREMENT PRIMARY KEY,
  due_at     BIGINT         NOT NULL,
  created_at BIGINT         NOT NULL,
  id         LONGBLOB       NOT NULL,
  topic      VARBINARY(249) NOT NULL,
  {key}      LONGBLOB       NOT NULL,
  metadata   LONGBLOB       NOT NULL,
  payload    LONGBLOB       NOT NULL,
  INDEX {i}_scheduled_due (due_at, position)
) ENGINE=InnoDB
---
CREATE TABLE IF NOT EXISTS {p}_parked (
  position   BIGINT         NOT NULL PRIMARY KEY,
  created_at BIGINT         NOT NULL,
  id         LONGBLOB       NOT NULL,
  topic      VARBINARY(249) NOT NULL,
  {key}      LONGBLOB       NOT NULL,
  metadata   LONGBLOB       NOT NULL,
  payload    LONGBLOB       NOT NULL,
  error      LONGTEXT       CHARACTER SET utf8mb4 NOT NULL,
  attempts   BIGINT         NOT NULL,
  holds_key  BIGINT         NOT NULL,
  parked_at  BIGINT         NOT NULL,
  INDEX {i}_parked_key (topic, {key}(64))
) ENGINE=InnoDB
---
CREATE TABLE IF NOT EXISTS {p}_relay (
  singleton   INT            NOT NULL PRIMARY KEY CHECK (singleton = 1),
  version     INT            NOT NULL,
  owner       VARBINARY(500) NOT NULL,
  token       BIGINT         NOT NULL,
  lease_until BIGINT         NOT NULL,
  published   BIGINT         NOT NULL,
  gaps        LONGBLOB       NOT NULL,
  swept       BIGINT         NOT NULL
) ENGINE=InnoDB
---
INSERT IGNORE INTO {p}_relay (singleton, version, owner, token, lease_until, published, gaps, swept)
VALUES (1, 1, '', 0, 0, 0, '', 0)`
