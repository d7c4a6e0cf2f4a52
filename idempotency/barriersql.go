package idempotency

import (
	"context"
	"fmt"
	"strings"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/dialect"
)

// barrierSQL are the statements of one Barrier.
type barrierSQL struct {
	dialect    Dialect
	table      string
	migrations []dialect.Migration

	arrive, read, compensate, old, drop string
}

const barrierSchema = `
CREATE TABLE IF NOT EXISTS {t} (
  key_hash    {hash} NOT NULL,
  name        {bytes} NOT NULL,
  forward     SMALLINT NOT NULL,
  compensated SMALLINT NOT NULL,
  calls       INTEGER NOT NULL,
  expires_at  BIGINT NOT NULL,
  PRIMARY KEY (key_hash){index}
)`

func newBarrierSQL(d Dialect, table string) barrierSQL {
	q, create := sqlFor(d, table, barrierSchema)
	s := barrierSQL{
		dialect:    d,
		table:      table,
		migrations: []dialect.Migration{{Version: 1, Statements: create}},
		read:       q(`SELECT compensated, calls FROM {t} WHERE key_hash = ?`),
		compensate: q(`UPDATE {t} SET compensated = 1 WHERE key_hash = ?`),
		old:        q(`SELECT key_hash, expires_at FROM {t} WHERE expires_at >= ? AND expires_at <= {now} ORDER BY expires_at LIMIT ?`),
		drop:       q(`DELETE FROM {t} WHERE expires_at <= {now} AND key_hash IN (`),
	}
	insert := `INSERT INTO {t} AS b (key_hash, name, forward, compensated, calls, expires_at) VALUES (?, ?, ?, ?, 1, {now} + ?) `
	if d == dialect.MySQL {
		s.arrive = q(strings.Replace(insert, " AS b", "", 1) + `ON DUPLICATE KEY UPDATE calls = calls + 1, expires_at = {now} + ?`)
	} else {
		s.arrive = q(insert + `ON CONFLICT (key_hash) DO UPDATE SET calls = b.calls + 1, expires_at = {now} + ?`)
	}
	return s
}

// Schema returns the statements that make the table, for those with a migration
// tool of their own. They may be executed again without harm. It is empty if
// NewBarrier was given bad arguments.
func (b *Barrier) Schema() string {
	if b.err != nil {
		return ""
	}
	return b.sql.dialect.Script(b.sql.table, b.sql.migrations)
}

// Migrate makes the table if it is missing. It may be called at every start, by
// several processes at once.
func (b *Barrier) Migrate(ctx context.Context) error {
	if b.err != nil {
		return b.err
	}
	if err := b.sql.dialect.Migrate(ctx, b.db, b.sql.table, b.sql.migrations); err != nil {
		return fmt.Errorf("idempotency: migrate %s: %w", b.sql.table, err)
	}
	return nil
}

// Prune forgets the steps whose last command is older than the retention, in
// steps of some hundred rows. It returns how many, also when ctx ends or the
// database fails half-way. Several may run.
func (b *Barrier) Prune(ctx context.Context) (int64, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := pruning{b.db, b.sql.dialect, b.sql.old, b.sql.drop}.run(ctx)
	if err != nil {
		return n, fmt.Errorf("idempotency: prune %s: %w", b.sql.table, err)
	}
	return n, nil
}

var _ eventbus.Runner = (*Barrier)(nil)

// Run prunes at once and then every ten minutes until ctx ends; it then returns
// nil. Errors of the database are logged and retried; it fails only, at once, if
// NewBarrier was given bad arguments.
func (b *Barrier) Run(ctx context.Context) error {
	if b.err != nil {
		return b.err
	}
	return pruneForever(ctx, b.logger, b.sql.table, b.Prune)
}
