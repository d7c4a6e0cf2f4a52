package dialect

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Migration is a step of a schema's history. Published steps never change;
// a new version appends one.
type Migration struct {
	Version    int // 1, 2, 3 ...
	Statements []string
}

// ErrNewer says that the tables were made by a newer version of the program.
var ErrNewer = errors.New("the tables were made by a newer version of Millrace")

// busyPatience bounds how long Migrate waits for other writers, on top of the
// busy timeout of the connection.
const busyPatience = 15 * time.Second

// historyTable is where Migrate keeps what it has done, beside the tables of
// the prefix.
func historyTable(prefix string) string {
	if schema, _ := SplitPrefix(prefix); schema != "" {
		return schema + ".millrace_migrations"
	}
	return "millrace_migrations"
}

func (d Dialect) history(prefix string) (create, last, record string) {
	t, name := historyTable(prefix), "TEXT"
	if d == MySQL {
		name = "VARBINARY(110)"
	}
	create = `CREATE TABLE IF NOT EXISTS ` + t + ` (
  component  ` + name + ` NOT NULL,
  version    INTEGER NOT NULL,
  applied_at BIGINT NOT NULL,
  PRIMARY KEY (component, version)
)`
	last = d.Rebind(`SELECT coalesce(max(version), 0) FROM ` + t + ` WHERE component = ?`)
	switch d {
	case MySQL:
		record = `INSERT IGNORE INTO ` + t + ` (component, version, applied_at) VALUES (%s)`
	default:
		record = `INSERT INTO ` + t + ` (component, version, applied_at) VALUES (%s) ON CONFLICT DO NOTHING`
	}
	return create, last, record
}

// Migrate brings the tables of a prefix to the last of migrations, and records
// each step with its time in millrace_migrations. Any number of processes may
// call it at once: they take turns. Busy databases are waited for. What it
// returns wraps ErrNewer if the history goes beyond migrations.
func (d Dialect) Migrate(ctx context.Context, db *sql.DB, prefix string, migrations []Migration) error {
	deadline := time.Now().Add(busyPatience)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := d.migrate(ctx, db, prefix, migrations)
		if !d.IsBusy(err) || time.Now().After(deadline) {
			return err
		}
		if !Sleep(ctx, pause) {
			return fmt.Errorf("%w: last error: %w", context.Cause(ctx), err)
		}
	}
}

func (d Dialect) migrate(ctx context.Context, db *sql.DB, prefix string, migrations []Migration) error {
	create, last, record := d.history(prefix)
	return d.exclusively(ctx, db, historyTable(prefix), func(c execer) error {
		var version int
		err := c.QueryRowContext(ctx, last, prefix).Scan(&version)
		if d.IsMissingTable(err) {
			return errNoHistory
		}
		if err != nil {
			return fmt.Errorf("read the history of %s: %w", prefix, err)
		}
		if newest := migrations[len(migrations)-1].Version; version > newest {
			return fmt.Errorf("%s is at version %d, this program knows %d: %w", prefix, version, newest, ErrNewer)
		}
		for _, m := range migrations {
			if m.Version <= version {
				continue
			}
			for i, s := range m.Statements {
				if _, err := c.ExecContext(ctx, s); err != nil {
					return fmt.Errorf("version %d, statement %d of %d: %w", m.Version, i+1, len(m.Statements), err)
				}
			}
			statement := d.Rebind(fmt.Sprintf(record, "?, ?, ?"))
			if _, err := c.ExecContext(ctx, statement, prefix, m.Version, time.Now().UnixMilli()); err != nil {
				return fmt.Errorf("record version %d of %s: %w", m.Version, prefix, err)
			}
		}
		return nil
	}, create)
}

var errNoHistory = errors.New("there is no history")

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// exclusively runs fn while no other process migrates: in a transaction with an
// advisory lock on PostgreSQL, in one that writes on SQLite. The DDL of MySQL
// commits by itself, so each statement must be harmless when repeated; a named
// lock of the server keeps others out. Only if fn misses the history is it
// created, because CREATE IF NOT EXISTS takes a privilege that a program whose
// tables are there already need not have.
func (d Dialect) exclusively(ctx context.Context, db *sql.DB, name string, fn func(execer) error, create string) error {
	run := func(c execer) error {
		err := fn(c)
		if !errors.Is(err, errNoHistory) {
			return err
		}
		if _, err := c.ExecContext(ctx, create); err != nil {
			return fmt.Errorf("create %s: %w", name, err)
		}
		return fn(c)
	}
	if d == MySQL {
		return locked(ctx, db, name, run)
	}
	return d.Transact(ctx, db, func(tx *sql.Tx) error {
		switch d {
		case Postgres:
			if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtext('millrace'), hashtext($1))`, name); err != nil {
				return fmt.Errorf("take the lock of migrations: %w", err)
			}
			// An error would end the transaction, so what is missing is made first.
			var there bool
			if err := tx.QueryRowContext(ctx, `SELECT to_regclass($1) IS NOT NULL`, name).Scan(&there); err != nil {
				return fmt.Errorf("look for %s: %w", name, err)
			}
			if !there {
				if _, err := tx.ExecContext(ctx, create); err != nil {
					return fmt.Errorf("create %s: %w", name, err)
				}
			}
		}
		return run(tx)
	})
}

// locked runs fn on one connection that holds a named lock.
func locked(ctx context.Context, db *sql.DB, name string, fn func(execer) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // back to the pool
	var got sql.NullInt64
	if err := conn.QueryRowContext(ctx, `SELECT GET_LOCK(sha1(concat('millrace', coalesce(database(), ''), ?)), ?)`, name, int(busyPatience/time.Second)).Scan(&got); err != nil {
		return fmt.Errorf("take the lock of migrations: %w", err)
	}
	if got.Int64 != 1 {
		return fmt.Errorf("another process has been migrating %s for %v", name, busyPatience)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = conn.ExecContext(ctx, `DO RELEASE_LOCK(sha1(concat('millrace', coalesce(database(), ''), ?)))`, name)
	}()
	return fn(conn)
}

// Script returns all migrations as a text for migration tools, history
// included, so that Migrate knows what they did.
func (d Dialect) Script(prefix string, migrations []Migration) string {
	create, _, record := d.history(prefix)
	now := map[Dialect]string{
		SQLite:   "CAST(strftime('%s','now') AS INTEGER) * 1000",
		Postgres: "(extract(epoch FROM now()) * 1000)::bigint",
		MySQL:    "floor(unix_timestamp() * 1000)",
	}[d]
	statements := []string{create}
	for _, m := range migrations {
		statements = append(statements, m.Statements...)
		values := "'" + prefix + "', " + strconv.Itoa(m.Version) + ", " + now
		statements = append(statements, strings.Replace(record, "%s", values, 1))
	}
	return strings.Join(statements, ";\n\n") + ";\n"
}

// Sleep pauses for d and reports false when ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
