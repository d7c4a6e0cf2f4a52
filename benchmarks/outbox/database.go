package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"sync"

	_ "github.com/go-sql-driver/mysql" // mysql
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // sqlite

	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
)

// bench is a database with a business table, our outbox and a hand-written one.
type bench struct {
	plan
	ctx      context.Context
	dialect  outbox.Dialect
	name     string // of the database, for titles
	db       *sql.DB
	pool     *pgxpool.Pool // PostgreSQL only
	box      *outbox.Outbox
	riding   *outbox.Outbox    // the same one, its events sent with the COMMIT; PostgreSQL only
	pgx      *pgxoutbox.Outbox // the same one, PostgreSQL only
	ridingDB *sql.DB
	river    bool       // its tables are there
	keeps    bool       // the log with many rows is there
	unrested int        // events written since tables were emptied
	turn     sync.Mutex // of those who write to SQLite by hand
	business *sql.Stmt
	insert   *sql.Stmt // into the hand-written outbox; like business not on PostgreSQL
	loaded   string    // what is in the log; see load
	drop     func() error
}

const maxConns = 32

func (b *bench) setUp(driver, dsn string) (err error) {
	if b.db, err = sql.Open(driver, dsn); err != nil {
		return err
	}
	b.db.SetMaxIdleConns(maxConns)
	if b.dialect == outbox.Postgres {
		c, err := pgxpool.ParseConfig(dsn)
		if err != nil {
			return err
		}
		c.MaxConns = maxConns
		if b.pool, err = pgxpool.NewWithConfig(b.ctx, c); err != nil {
			return err
		}
	}
	b.box = outbox.New(b.db, b.dialect, outbox.Logger(slog.New(slog.DiscardHandler)))
	if b.pool != nil {
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			return err
		}
		b.ridingDB = sql.OpenDB(pgxoutbox.Connector(stdlib.GetConnector(*config)))
		b.ridingDB.SetMaxIdleConns(maxConns)
		b.riding = outbox.New(b.ridingDB, b.dialect, outbox.Logger(slog.New(slog.DiscardHandler)))
		b.pgx = pgxoutbox.New(b.pool, outbox.Logger(slog.New(slog.DiscardHandler)))
	}
	if err := b.box.Migrate(b.ctx); err != nil {
		return err
	}
	for _, s := range schema(b.dialect) {
		if err := b.exec(s); err != nil {
			return err
		}
	}
	if b.dialect == outbox.Postgres { // where pgx prepares by itself
		return nil
	}
	if b.business, err = b.db.PrepareContext(b.ctx, insertBusiness); err != nil {
		return err
	}
	b.insert, err = b.db.PrepareContext(b.ctx, insertHand)
	return err
}

// schema returns the tables of business, of the hand-written outbox, and the
// template of a full log.
func schema(d outbox.Dialect) []string {
	identity, text, bytes, like := "bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY", "text", "bytea", "CREATE UNLOGGED TABLE template (LIKE millrace_outbox INCLUDING DEFAULTS)"
	switch d {
	case outbox.MySQL:
		identity, text, bytes, like = "BIGINT AUTO_INCREMENT PRIMARY KEY", "VARCHAR(200)", "LONGBLOB", "CREATE TABLE template LIKE millrace_outbox"
	case outbox.SQLite:
		identity, bytes, like = "INTEGER PRIMARY KEY AUTOINCREMENT", "BLOB", "CREATE TABLE template AS SELECT * FROM millrace_outbox WHERE 0"
	}
	key := "ordering_key"
	return []string{
		"CREATE TABLE business (id " + identity + ", customer " + text + " NOT NULL, amount bigint NOT NULL, note " + text + ")",
		"CREATE TABLE hand_outbox (position " + identity + ", id " + text + " NOT NULL, topic " + text + " NOT NULL, " + key + " " + text + " NOT NULL, metadata " + bytes + " NOT NULL, payload " + bytes + " NOT NULL)",
		"CREATE TABLE hand_cursor (id integer PRIMARY KEY, position bigint NOT NULL, missing " + bytes + ")",
		"INSERT INTO hand_cursor VALUES (1, 0, NULL)",
		like,
	}
}

const (
	insertBusiness = "INSERT INTO business (customer, amount, note) VALUES (?, ?, ?)"
	insertHand     = "INSERT INTO hand_outbox (id, topic, ordering_key, metadata, payload) VALUES (?, ?, ?, ?, ?)"
)

// bind writes the marks of parameters as the database wants them.
func (b *bench) bind(statement string) string { return b.dialect.Rebind(statement) }

func (b *bench) exec(statement string, args ...any) error {
	_, err := b.db.ExecContext(b.ctx, b.bind(statement), args...)
	return err
}

// execAll executes statements without parameters, in order.
func (b *bench) execAll(statements ...string) error {
	for _, s := range statements {
		if err := b.exec(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

func (b *bench) truncate(tables ...string) error {
	for _, t := range tables {
		s := "TRUNCATE TABLE " + t
		switch b.dialect {
		case outbox.SQLite:
			s = "DELETE FROM " + t
		case outbox.Postgres:
			s += " RESTART IDENTITY CASCADE"
		}
		if err := b.exec(s); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) close() error {
	if b.pgx != nil {
		_ = b.pgx.Close()
	}
	if b.pool != nil {
		_ = b.ridingDB.Close()
		b.pool.Close()
	}
	if b.db != nil {
		_ = b.db.Close()
	}
	return b.drop()
}
