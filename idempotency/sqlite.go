package idempotency

import (
	"strings"

	"github.com/millrace-go/millrace/internal/dialect"
)

// statements are the SQL of one inbox. Times are Unix milliseconds.
type statements struct {
	dialect     Dialect
	table       string
	migrations  []dialect.Migration
	mark, prune string
}

const sqliteSchema = `
CREATE TABLE IF NOT EXISTS {t} (
  consumer   TEXT    NOT NULL,
  source     TEXT    NOT NULL,
  id         TEXT    NOT NULL,
  handled_at INTEGER NOT NULL,
  PRIMARY KEY (consumer, source, id)
) WITHOUT ROWID
---
CREATE INDEX IF NOT EXISTS {t}_handled_at ON {t} (handled_at)`

func sqlite(d Dialect, table string) statements {
	q := func(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "{t}", table) }
	return statements{
		dialect:    d,
		table:      table,
		migrations: []dialect.Migration{{Version: 1, Statements: strings.Split(q(sqliteSchema), "\n---\n")}},
		mark:       q(`INSERT INTO {t} (consumer, source, id, handled_at) VALUES (?,?,?,?) ON CONFLICT DO NOTHING`),
		prune: q(`DELETE FROM {t} WHERE (consumer, source, id) IN
			(SELECT consumer, source, id FROM {t} WHERE handled_at < ? ORDER BY handled_at LIMIT ?)`),
	}
}
