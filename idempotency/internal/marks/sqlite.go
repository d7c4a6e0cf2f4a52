package marks

import (
	"strings"

	"github.com/millrace-go/millrace/internal/dialect"
)

// TEXT compares byte by byte. The schema of an index is that of its table, and
// stands before the index.
const sqliteSchema = `
CREATE TABLE IF NOT EXISTS {t} (
  consumer   TEXT    NOT NULL,
  source     TEXT    NOT NULL,
  id         TEXT    NOT NULL,
  handled_at INTEGER NOT NULL,
  PRIMARY KEY (consumer, source, id)
) WITHOUT ROWID
---
CREATE INDEX IF NOT EXISTS {s}{i}_handled_at ON {i} (handled_at)`

func (s *Statements) sqlite(q func(string) string) {
	schema, _ := dialect.SplitPrefix(s.Table)
	if schema != "" {
		schema += "."
	}
	s.Migrations = versions(q, strings.ReplaceAll(sqliteSchema, "{s}", schema))
	s.Mark = q(insert + ` ON CONFLICT DO NOTHING`)
	s.Prune = q(`DELETE FROM {t} WHERE (consumer, source, id) IN
  (SELECT consumer, source, id FROM {t} WHERE handled_at >= ? AND handled_at < ? ORDER BY handled_at LIMIT ?)
RETURNING handled_at`)
}
