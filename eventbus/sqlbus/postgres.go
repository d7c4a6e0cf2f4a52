package sqlbus

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strings"
	"time"
)

// postgresLock is the first half of the advisory locks: one for each topic, by
// the hash of its name. Package watermillsql uses the same.
const postgresLock = 1835625580 // "milr"

const (
	// postgresNow is when the statement began, which an index can be searched for.
	postgresNow = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint"
	// postgresTick is the time at which a row is written.
	postgresTick = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
)

var postgresDialect = &dialect{
	numbered: true,
	now:      postgresNow,
	lock:     "FOR UPDATE",
	in:       "= ANY(?)",
	inArg:    func(list numbers) any { return []int64(list) },
	perTopic: true,

	newest: "SELECT max(position) FROM millrace_events WHERE topic = ?",
	next:   serverNext,
	tail:   `SELECT position, topic, "partition" FROM millrace_events WHERE topic = ? AND position > ? ORDER BY position {limit}`,
	// Skips from one topic to the next, whatever the number of events.
	topics: `WITH RECURSIVE t(topic) AS (
	(SELECT topic FROM millrace_events ORDER BY topic LIMIT 1)
	UNION ALL
	SELECT (SELECT e.topic FROM millrace_events AS e WHERE e.topic > t.topic ORDER BY e.topic LIMIT 1) FROM t WHERE t.topic IS NOT NULL
) SELECT t.topic FROM t WHERE t.topic IS NOT NULL
AND (SELECT e.published_at FROM millrace_events AS e WHERE e.topic = t.topic ORDER BY e.position LIMIT 1) < {now} - ?`,
	old:         true,
	insertNew:   "INSERT",
	unlessThere: " ON CONFLICT DO NOTHING",
	commitEvery: serverCommitEvery,
	idleDue:     time.Second,
}

// postgres is a flavour. Its transactions set what they need themselves, and
// nothing relies on a session, so a pooler that hands connections out by
// transaction may stand in between, if NoListen is set.
type postgres struct {
	*listener
}

func (*postgres) dialect() *dialect { return postgresDialect }

func (*postgres) begin() string {
	return "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '1s'; SET LOCAL statement_timeout = '30s'; SET LOCAL idle_in_transaction_session_timeout = '10s'"
}

func (p *postgres) provision(ctx context.Context, db *sql.DB, allowed bool) error {
	// By way of a table: to_regclass alone may answer from a cache that is older
	// than the lock below.
	const there = "SELECT count(*) > 0 FROM pg_catalog.pg_class WHERE oid = to_regclass('millrace_meta')"
	var found bool
	if err := db.QueryRowContext(ctx, there).Scan(&found); err != nil {
		return err
	}
	var readOnly string
	if err := db.QueryRowContext(ctx, "SELECT current_setting('transaction_read_only')").Scan(&readOnly); err != nil {
		return err
	}
	switch {
	case readOnly == "on":
		return errReadOnly
	case found:
		return nil
	case !allowed:
		return errNoTables(Postgres)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1, 0)", postgresLock); err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, there).Scan(&found); err != nil || found {
		return err
	}
	if _, err := tx.ExecContext(ctx, Schema(Postgres)); err != nil {
		return err
	}
	return tx.Commit()
}

func (*postgres) inspect(s *session) (warnings []string) {
	for _, setting := range []string{"fsync", "synchronous_commit"} {
		off, _, err := s.number("SELECT CASE current_setting(?) WHEN 'off' THEN 1 ELSE 0 END", setting)
		if err == nil && off == 1 {
			warnings = append(warnings, setting+" is off")
		}
	}
	return warnings
}

func (*postgres) maxBytes() int { return 32 << 20 }
func (*postgres) maxRow() int   { return 0 }

// postgresFloor is what positions follow. They keep up with the clock, so that
// none is given twice, or below what a consumer has seen, when a crash of the
// server or a replica that lags behind takes commits back. The division fails if
// the clock was set back since the statement began.
const postgresFloor = "floor AS MATERIALIZED (SELECT greatest((SELECT max(position) FROM millrace_events WHERE topic = %s), " + postgresTick + ") / (clock_timestamp() >= statement_timestamp())::integer AS position%s)"

// postgresLocked makes one statement of the lock and what needs it, so that the
// server has received all of it before it takes the lock. It does not see what
// was committed while it waited, but the clock has gone on: whoever held the lock
// before gave fewer positions than microseconds have passed.
var postgresLocked = fmt.Sprintf("locked AS MATERIALIZED (SELECT set_config('lock_timeout', '1s', true), pg_advisory_xact_lock(%d, hashtext($1))), ", postgresLock) +
	fmt.Sprintf(postgresFloor, "$1", " FROM locked")

// postgresUnlocked is for a statement that takes no positions.
const postgresUnlocked = "floor AS (SELECT 0 AS position)"

const postgresInsert = `WITH %s%s
INSERT INTO millrace_events (topic, position, "partition", "key", id, metadata, payload, published_at)
SELECT $1, floor.position + e.n, e.partition, e.key, e.id, e.metadata, e.payload, ` + postgresTick + `
FROM floor, unnest($2::integer[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bytea[])
	WITH ORDINALITY AS e(partition, key, id, metadata, payload, n)`

const postgresInsertDue = `, later AS (INSERT INTO millrace_due (due_at, topic, "partition", "key", id, metadata, payload)
	SELECT d.due, $1, d.partition, d.key, d.id, d.metadata, d.payload
	FROM unnest($%d::bigint[], $%d::integer[], $%d::bytea[], $%d::bytea[], $%d::bytea[], $%d::bytea[])
	WITH ORDINALITY AS d(due, partition, key, id, metadata, payload, n) ORDER BY d.n)`

// insert is one statement, so whole makes no difference. Its arguments are
// numbered already.
func (*postgres) insert(topic, batch, before string, rows []row, _ bool) (string, []any) {
	var now, later columns
	for i := range rows {
		if rows[i].due == 0 {
			now.add(&rows[i])
		} else {
			later.add(&rows[i])
		}
	}
	args := append([]any{topic}, now.args()...)
	var with strings.Builder
	if batch != "" {
		fmt.Fprintf(&with, ", recorded AS (INSERT INTO millrace_batches (id, written_at, fence) VALUES ($%d, %s, 0)), forgotten AS (DELETE FROM millrace_batches WHERE id = $%d)", len(args)+1, postgresNow, len(args)+2)
		args = append(args, batch, before)
	}
	if len(later.due) > 0 {
		n := len(args)
		fmt.Fprintf(&with, postgresInsertDue, n+1, n+2, n+3, n+4, n+5, n+6)
		args = append(append(args, later.due), later.args()...)
	}
	floor := postgresLocked
	if len(now.key) == 0 {
		floor = postgresUnlocked
	}
	return fmt.Sprintf(postgresInsert, floor, with.String()), args
}

// columns are rows as arrays.
type columns struct {
	due                        []int64
	partition                  []int32
	key, id, metadata, payload [][]byte
}

func (c *columns) add(r *row) {
	c.due = append(c.due, r.due)
	c.partition = append(c.partition, int32(min(r.partition, math.MaxInt32)))
	c.key = append(c.key, []byte(r.key))
	c.id = append(c.id, []byte(r.id))
	c.metadata = append(c.metadata, r.metadata)
	c.payload = append(c.payload, r.payload)
}

func (c *columns) args() []any { return []any{c.partition, c.key, c.id, c.metadata, c.payload} }

func (*postgres) prepareTopic(*session, string) error { return nil }
func (*postgres) missing(error) bool                  { return false }

func (*postgres) moveDue(s *session, topic string) error {
	// Apart: what comes after sees what the last to hold the lock has moved.
	if _, _, err := s.number("SELECT 1 FROM pg_advisory_xact_lock(?, hashtext(?))", postgresLock, topic); err != nil {
		return err
	}
	_, err := s.exec(postgresMoveDue, topic, topic, dueStep)
	return err
}

var postgresMoveDue = `WITH ` + fmt.Sprintf(postgresFloor, "?", "") + `, due AS (
	DELETE FROM millrace_due WHERE seq IN (
		SELECT seq FROM millrace_due WHERE topic = ? AND due_at <= {now} ORDER BY due_at, seq {limit}
	) RETURNING *
) INSERT INTO millrace_events (topic, position, "partition", "key", id, metadata, payload, published_at)
SELECT d.topic, floor.position + row_number() OVER (ORDER BY d.due_at, d.seq), d.partition, d.key, d.id, d.metadata, d.payload, ` + postgresTick + `
FROM floor, due AS d`

func (*postgres) heads(topics []string) (string, []any) {
	return "SELECT t.topic, (SELECT max(position) FROM millrace_events AS e WHERE e.topic = t.topic) FROM unnest(?::text[]) AS t(topic)", []any{topics}
}
