package outbox

// There is one writer at a time, so positions are commit order and nothing is
// missing between them but what was rolled back.
var sqliteFlavour = flavour{
	schema:  sqliteSchema,
	now:     `CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)`,
	integer: "INTEGER",
	key:     "key",
	fence:   `UPDATE {p}_relay SET token = token WHERE singleton = 1 AND token = ?`,
}

const sqliteSchema = `
CREATE TABLE IF NOT EXISTS {p} (
  position   INTEGER PRIMARY KEY AUTOINCREMENT,
  created_at INTEGER NOT NULL,
  id         BLOB    NOT NULL,
  topic      TEXT    NOT NULL,
  key        BLOB    NOT NULL,
  metadata   BLOB    NOT NULL,
  payload    BLOB    NOT NULL
)
---
CREATE TABLE IF NOT EXISTS {p}_scheduled (
  position   INTEGER PRIMARY KEY AUTOINCREMENT,
  due_at     INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  id         BLOB    NOT NULL,
  topic      TEXT    NOT NULL,
  key        BLOB    NOT NULL,
  metadata   BLOB    NOT NULL,
  payload    BLOB    NOT NULL
)
---
CREATE INDEX IF NOT EXISTS {i}_scheduled_due ON {p}_scheduled (due_at, position)
---
CREATE TABLE IF NOT EXISTS {p}_parked (
  position   INTEGER PRIMARY KEY,
  created_at INTEGER NOT NULL,
  id         BLOB    NOT NULL,
  topic      TEXT    NOT NULL,
  key        BLOB    NOT NULL,
  metadata   BLOB    NOT NULL,
  payload    BLOB    NOT NULL,
  error      TEXT    NOT NULL,
  attempts   INTEGER NOT NULL,
  holds_key  INTEGER NOT NULL,
  parked_at  INTEGER NOT NULL
)
---
CREATE INDEX IF NOT EXISTS {i}_parked_key ON {p}_parked (topic, key)
---
CREATE TABLE IF NOT EXISTS {p}_relay (
  singleton   INTEGER PRIMARY KEY CHECK (singleton = 1),
  version     INTEGER NOT NULL,
  owner       TEXT    NOT NULL,
  token       INTEGER NOT NULL,
  lease_until INTEGER NOT NULL,
  published   INTEGER NOT NULL,
  gaps        BLOB    NOT NULL,
  swept       INTEGER NOT NULL
)
---
INSERT INTO {p}_relay (singleton, version, owner, token, lease_until, published, gaps, swept)
VALUES (1, 1, '', 0, 0, 0, x'', 0) ON CONFLICT DO NOTHING`
