package saga

import (
	"strings"

	"github.com/millrace-go/millrace/internal/dialect"
)

// statements are the SQL of one store.
type statements struct {
	dialect    Dialect
	prefix     string
	migrations []dialect.Migration

	load, history, count, pinned, pin string

	// An instance and its history are one statement on PostgreSQL, two elsewhere. The
	// guarded ones fail where the others change nothing.
	insert, update, record       string
	guardedInsert, guardedUpdate string

	list                            listStatements
	sagas, ended, drop, dropHistory string // pruning
}

const (
	instanceColumns = `saga, id, version, revision, status, state_version, wake_at, created_at, updated_at, error, progress, state`
	entryColumns    = `saga, id, revision, at, event, event_id, from_position, to_position, emitted, note, state`
)

func newStatements(d Dialect, prefix string) statements {
	q := func(s string) string { return d.Rebind(strings.ReplaceAll(strings.TrimSpace(s), "{p}", prefix)) }
	s := statements{dialect: d, prefix: prefix, migrations: migrations(d, prefix)}
	s.load = q(`SELECT ` + instanceColumns + ` FROM {p} WHERE saga = ? AND id = ?`)
	s.history = q(`SELECT ` + entryColumns + ` FROM {p}_history WHERE saga = ? AND id = ? ORDER BY revision`)
	s.count = q(`SELECT status, count(*) FROM {p} WHERE saga = ? GROUP BY status`)
	s.pinned = q(`SELECT fingerprint FROM {p}_definitions WHERE saga = ? AND version = ?`)
	s.pin = q(`INSERT INTO {p}_definitions (saga, version, fingerprint) VALUES (?, ?, ?)` + orNothing(d))
	if d == Postgres {
		s.commitPostgres(q)
	} else {
		s.insert = q(`INSERT INTO {p} (` + instanceColumns + `, rested_at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)` + orNothing(d))
		s.update = q(`UPDATE {p} SET version = ?, revision = ?, status = ?, state_version = ?, wake_at = ?, created_at = ?, updated_at = ?,
			error = ?, progress = ?, state = ?, rested_at = ? WHERE saga = ? AND id = ? AND revision = ?`)
		s.record = q(`INSERT INTO {p}_history (` + entryColumns + `) VALUES (?,?,?,?,?,?,?,?,?,?,?)`)
	}
	s.list = newListStatements(d, prefix)
	s.sagas = q(`SELECT min(saga) FROM {p} WHERE saga > ?`)
	s.ended = q(`SELECT id, revision, rested_at FROM {p}
		WHERE saga = ? AND status = ? AND rested_at >= ? AND rested_at < ? ORDER BY rested_at LIMIT ?` + skipLocked(d))
	ids := strings.TrimSuffix(strings.Repeat("?,", pruneRows), ",")
	s.drop = q(`DELETE FROM {p} WHERE saga = ? AND id IN (` + ids + `)`)
	s.dropHistory = q(`DELETE FROM {p}_history WHERE saga = ? AND id IN (` + ids + `)`)
	return s
}

// orNothing has an INSERT do nothing where the row is there. MySQL's IGNORE would
// ignore other errors too.
func orNothing(d Dialect) string {
	if d == MySQL {
		return ""
	}
	return ` ON CONFLICT DO NOTHING`
}

// skipLocked locks rows that nobody else has locked. SQLite has one writer at a
// time.
func skipLocked(d Dialect) string {
	if d == SQLite {
		return ""
	}
	return ` FOR UPDATE SKIP LOCKED`
}

// commitPostgres writes an instance and its history by one statement, whose
// parameters are those of transitionArgs.
func (s *statements) commitPostgres(q func(string) string) {
	const (
		insert = `INSERT INTO {p} (` + instanceColumns + `, rested_at)
			VALUES ($1::text, $2::bytea, $3, $4::bigint, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT DO NOTHING RETURNING 1`
		update = `UPDATE {p} SET version = $3, revision = $4::bigint, status = $5, state_version = $6, wake_at = $7, created_at = $8,
			updated_at = $9, error = $10, progress = $11, state = $12, rested_at = $13
			WHERE saga = $1::text AND id = $2::bytea AND revision = $4::bigint - 1 RETURNING 1`
		record = `INSERT INTO {p}_history (` + entryColumns + `)
			SELECT $1::text, $2::bytea, $4::bigint, $14::bigint, $15::text, $16::bytea, $17::text, $18::text, $19::text, $20::text, $21::bytea FROM changed`
	)
	s.insert = q(`WITH changed AS (` + insert + `) ` + record)
	s.update = q(`WITH changed AS (` + update + `) ` + record)
	guard := `, recorded AS (` + record + `) SELECT 1 / count(*) FROM changed`
	s.guardedInsert = q(`WITH changed AS (` + insert + `)` + guard)
	s.guardedUpdate = q(`WITH changed AS (` + update + `)` + guard)
}
