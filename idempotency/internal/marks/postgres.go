package marks

// The collation is named, so that that of the database decides nothing: not
// what is equal, and not in what order an upgrade of its library leaves the index.
const postgresSchema = `
CREATE TABLE IF NOT EXISTS {t} (
  consumer   text COLLATE "C" NOT NULL,
  source     text COLLATE "C" NOT NULL,
  id         text COLLATE "C" NOT NULL,
  handled_at bigint NOT NULL,
  PRIMARY KEY (consumer, source, id)
)
---
CREATE INDEX IF NOT EXISTS {i}_handled_at ON {t} (handled_at)`

func (s *Statements) postgres(q func(string) string) {
	s.Migrations = versions(q, postgresSchema)
	s.Mark = q(insert + ` ON CONFLICT DO NOTHING`)
	s.Strict = q(insert)
	// No SKIP LOCKED: locking needs the right to UPDATE. Two that prune take the
	// same rows in the same order, so one waits for the other.
	s.Prune = q(`DELETE FROM {t} WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM {t} WHERE handled_at >= ? AND handled_at < ? ORDER BY handled_at LIMIT ?))
RETURNING handled_at`)
}
