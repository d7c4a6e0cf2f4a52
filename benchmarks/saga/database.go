package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // sqlite

	"github.com/millrace-go/millrace/saga"
)

const most = 64 // workers, and connections

// bench is a database with tables of a saga by hand, and with ours.
type bench struct {
	plan
	ctx  context.Context
	pool *pgxpool.Pool
	db   *sql.DB // on top of pool
	lite *sql.DB
	drop func() error // closes and deletes lite
	pgx  *ours
	sql  *ours
	info *ours // on SQLite
}

// newDatabase makes a database and returns its URL and what drops it.
func newDatabase(ctx context.Context, server string) (dsn string, drop func() error, err error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", nil, errors.New("the URL of the server: not a URL")
	}
	admin := func(ctx context.Context, statement string) error {
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, statement)
		return err
	}
	name := "bench_saga_" + strings.ToLower(rand.Text()[:8])
	if err := admin(ctx, "CREATE DATABASE "+name); err != nil {
		return "", nil, err
	}
	u.Path = "/" + name
	drop = func() error { return admin(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)") }
	return u.String(), drop, nil
}

func open(ctx context.Context, dsn string, p plan) (*bench, error) {
	b := &bench{plan: p, ctx: ctx}
	if err := b.setUp(dsn); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bench) setUp(dsn string) error {
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return err
	}
	c.MaxConns = most
	if b.pool, err = pgxpool.NewWithConfig(b.ctx, c); err != nil {
		return err
	}
	b.db = stdlib.OpenDBFromPool(b.pool)
	if b.lite, b.drop, err = openSQLite(); err != nil {
		return err
	}
	rows := fmt.Sprintf(`INSERT INTO floor SELECT g, 0, 0, '%s' FROM generate_series(1, %d) g`, document, most*rowsEach)
	for _, statement := range []string{handSchema, rows} {
		if _, err := b.pool.Exec(b.ctx, statement); err != nil {
			return err
		}
	}
	if b.pgx, err = onPgx(b.ctx, b.pool, "millrace"); err != nil {
		return err
	}
	if b.sql, err = onSQL(b.ctx, b.db, saga.Postgres); err != nil {
		return err
	}
	b.info, err = onSQL(b.ctx, b.lite, saga.SQLite)
	return err
}

// openSQLite returns a new database, and what closes and deletes it.
func openSQLite() (*sql.DB, func() error, error) {
	dir, err := os.MkdirTemp("", "bench-saga-")
	if err != nil {
		return nil, nil, err
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "bench.db")+"?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return db, func() error { return errors.Join(db.Close(), os.RemoveAll(dir)) }, nil
}

func (b *bench) close() error {
	var errs []error
	if b.pgx != nil {
		errs = append(errs, b.pgx.close())
	}
	if b.pool != nil {
		errs = append(errs, b.db.Close())
		b.pool.Close()
	}
	if b.drop != nil {
		errs = append(errs, b.drop())
	}
	return errors.Join(errs...)
}

// rest empties the tables, so that each variant finds them alike.
func (b *bench) rest() error {
	_, err := b.pool.Exec(b.ctx, "TRUNCATE hand, hand_outbox, millrace_saga, millrace_saga_history, millrace_outbox, millrace_outbox_scheduled, millrace_inbox")
	if err == nil {
		_, err = b.pool.Exec(b.ctx, "VACUUM floor")
	}
	return err
}
