package idempotency

import (
	"github.com/millrace-go/millrace/internal/dialect"
)

// leaseSQL are the statements of one SQLStore. Times are Unix microseconds of
// the database's clock.
type leaseSQL struct {
	dialect    Dialect
	table      string
	migrations []dialect.Migration

	read, insert, take, renew, complete, release string
	old, drop                                    string
}

const leaseSchema = `
CREATE TABLE IF NOT EXISTS {t} (
  key_hash    {hash} NOT NULL,
  name        {bytes} NOT NULL,
  phase       SMALLINT NOT NULL,
  token       BIGINT NOT NULL,
  attempt     INTEGER NOT NULL,
  fingerprint {bytes},
  lease_until BIGINT NOT NULL,
  expires_at  BIGINT NOT NULL,
  claimed_at  BIGINT NOT NULL,
  result      {blob},
  PRIMARY KEY (key_hash){index}
)`

func newLeaseSQL(d Dialect, table string) leaseSQL {
	q, create := sqlFor(d, table, leaseSchema)
	return leaseSQL{
		dialect:    d,
		table:      table,
		migrations: []dialect.Migration{{Version: 1, Statements: create}},
		read: q(`SELECT {now}, phase, token, attempt, fingerprint, lease_until, expires_at, result
			FROM (SELECT 1 AS one) AS one LEFT JOIN {t} ON key_hash = ?`),
		insert: q(`INSERT{ignore} INTO {t} (key_hash, name, phase, token, attempt, fingerprint, lease_until, expires_at, claimed_at)
			VALUES (?,?,?,?,?,?,?,?,?){nothing}`),
		take: q(`UPDATE {t} SET phase = ?, token = ?, attempt = ?, fingerprint = ?, lease_until = ?, expires_at = ?, claimed_at = ?, result = NULL
			WHERE key_hash = ? AND token = ? AND phase = ? AND lease_until = ?`),
		renew:    q(`UPDATE {t} SET lease_until = {now} + ?, expires_at = {greatest}(expires_at, {now} + ?) WHERE key_hash = ? AND token = ? AND phase = 1`),
		complete: q(`UPDATE {t} SET phase = 3, result = ?, lease_until = {now}, expires_at = {now} + ? WHERE key_hash = ? AND token = ? AND phase = 1`),
		release:  q(`UPDATE {t} SET phase = 2, lease_until = {now} WHERE key_hash = ? AND token = ? AND phase = 1`),
		old:      q(`SELECT key_hash, expires_at FROM {t} WHERE expires_at >= ? AND expires_at <= {now} ORDER BY expires_at LIMIT ?`),
		drop:     q(`DELETE FROM {t} WHERE expires_at <= {now} AND key_hash IN (`),
	}
}
