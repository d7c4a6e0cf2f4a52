package marks

// Columns are binary: collations of text take "a" for "A" or "a ".
const mysqlSchema = `
CREATE TABLE IF NOT EXISTS {t} (
  consumer   VARBINARY(255) NOT NULL,
  source     VARBINARY(255) NOT NULL,
  id         VARBINARY(255) NOT NULL,
  handled_at BIGINT NOT NULL,
  PRIMARY KEY (consumer, source, id),
  KEY {i}_handled_at (handled_at)
) ENGINE=InnoDB`

func (s *Statements) mysql(q func(string) string) {
	s.Migrations = versions(q, mysqlSchema)
	// IGNORE would ignore other errors too, and what ON DUPLICATE KEY UPDATE
	// affects depends on the setting clientFoundRows.
	s.Mark = q(insert)
	s.PruneBound = q(`SELECT max(handled_at) FROM
  (SELECT handled_at FROM {t} WHERE handled_at >= ? AND handled_at < ? ORDER BY handled_at LIMIT ?) AS step`)
	s.Prune = q(`DELETE FROM {t} WHERE handled_at >= ? AND handled_at <= ? ORDER BY handled_at LIMIT ?`)
}
