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
	loadTogether                      string // of PostgreSQL

	// An instance and its history are one statement on PostgreSQL, two elsewhere. The
	// guarded ones fail where the others change nothing.
	insert, update, record       string
	guardedInsert, guardedUpdate string
	// Of several instances, by arrays.
	insertTogether, updateTogether string

	list                            listStatements
	sagas, ended, drop, dropHistory string // pruning
}

const (
	instanceColumns = `saga, id, version, revision, status, state_version, wake_at, created_at, updated_at, error, progress, state, rested_at`
	entryColumns    = `saga, id, revision, at, event, event_id, from_position, to_position, emitted, note, state`
)

func newStatements(d Dialect, prefix string) statements {
	q := func(s string) string {
		return d.Rebind(strings.NewReplacer("{p}", prefix, "{listed}", byIndex(d)).Replace(strings.TrimSpace(s)))
	}
	s := statements{dialect: d, prefix: prefix, migrations: migrations(d, prefix)}
	s.load = q(`SELECT ` + instanceColumns + ` FROM {p} WHERE saga = ? AND id = ?`)
	s.history = q(`SELECT ` + entryColumns + ` FROM {p}_history WHERE saga = ? AND id = ? ORDER BY revision`)
	s.count = q(`SELECT status, count(*) FROM {p} WHERE saga = ?{listed} GROUP BY status`)
	s.pinned = q(`SELECT fingerprint FROM {p}_definitions WHERE saga = ? AND version = ?`)
	s.pin = q(`INSERT INTO {p}_definitions (saga, version, fingerprint) VALUES (?, ?, ?)` + orNothing(d))
	if d == Postgres {
		s.commitPostgres(q)
		s.togetherPostgres(q)
	} else {
		s.insert = q(`INSERT INTO {p} (` + instanceColumns + `) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)` + orNothing(d))
		s.update = q(`UPDATE {p} SET version = ?, revision = ?, status = ?, state_version = ?, wake_at = ?, created_at = ?, updated_at = ?,
			error = ?, progress = ?, state = ?, rested_at = ? WHERE saga = ? AND id = ? AND revision = ?`)
		s.record = q(`INSERT INTO {p}_history (` + entryColumns + `) VALUES (?,?,?,?,?,?,?,?,?,?,?)`)
	}
	s.list = newListStatements(d, prefix)
	s.sagas = q(`SELECT min(saga) FROM {p} WHERE saga > ?`)
	s.ended = q(`SELECT id, revision, rested_at FROM {p}
		WHERE saga = ? AND status = ?{listed} AND rested_at >= ? AND rested_at < ? ORDER BY rested_at LIMIT ?` + skipLocked(d))
	ids := strings.TrimSuffix(strings.Repeat("?,", pruneRows), ",")
	s.drop = q(`DELETE FROM {p} WHERE saga = ? AND id IN (` + ids + `)`)
	s.dropHistory = q(`DELETE FROM {p}_history WHERE saga = ? AND id IN (` + ids + `)`)
	return s
}

// byIndex has the index for lists used.
func byIndex(d Dialect) string {
	if d == Postgres {
		return " AND " + listed
	}
	return ""
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
		insert = `INSERT INTO {p} (` + instanceColumns + `)
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

// togetherPostgres reads and writes several instances by one statement. The
// parameters are those of the single ones, as arrays. What is written is all of
// them or, by a division by zero, none.
func (s *statements) togetherPostgres(q func(string) string) {
	// A LIMIT has each instance looked up by its key, whatever the planner believes
	// about the size of the table.
	s.loadTogether = q(`SELECT u.n, i.* FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS u (saga, id, n)
		CROSS JOIN LATERAL (SELECT ` + instanceColumns + ` FROM {p} AS s WHERE s.saga = u.saga AND s.id = u.id LIMIT 1) AS i`)
	const (
		instances = `unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
			$9::bigint[], $10::text[], $11::bytea[], $12::bytea[], $13::bigint[])`
		record = `, recorded AS (INSERT INTO {p}_history (` + entryColumns + `) SELECT * FROM
			unnest($1::text[], $2::bytea[], $4::bigint[], $14::bigint[], $15::text[], $16::bytea[], $17::text[], $18::text[], $19::text[], $20::text[], $21::bytea[]))
			SELECT 1 / (count(*) = cardinality($1::text[]))::int FROM changed`
	)
	s.insertTogether = q(`WITH changed AS (INSERT INTO {p} (` + instanceColumns + `) SELECT * FROM ` + instances + `
		ON CONFLICT DO NOTHING RETURNING 1)` + record)
	s.updateTogether = q(`WITH changed AS (UPDATE {p} AS s SET version = u.version, revision = u.revision, status = u.status, state_version = u.state_version,
			wake_at = u.wake_at, created_at = u.created_at, updated_at = u.updated_at, error = u.error, progress = u.progress, state = u.state, rested_at = u.rested_at
		FROM ` + instances + ` AS u (` + instanceColumns + `)
		WHERE s.saga = u.saga AND s.id = u.id AND s.revision = u.revision - 1 RETURNING 1)` + record)
}
