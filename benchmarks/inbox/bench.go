package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
)

const (
	workersMost = 8
	rows        = 100 // of each worker, so that none waits for another's
	business    = `UPDATE account SET balance = balance + 1 WHERE id = $1`
)

// bench is a database with a business table, a hand-written inbox and ours.
type bench struct {
	ctx  context.Context
	pool *pgxpool.Pool
	db   *sql.DB
	own  *sql.DB // by pgxoutbox.Connector
	sql  *idempotency.Inbox
	pgx  *pgxinbox.Inbox
}

func open(ctx context.Context, dsn string) (*bench, error) {
	c, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	c.MaxConns = workersMost
	b := &bench{ctx: ctx}
	if b.pool, err = pgxpool.NewWithConfig(ctx, c); err != nil {
		return nil, err
	}
	b.db = stdlib.OpenDB(*c.ConnConfig)
	b.db.SetMaxIdleConns(workersMost)
	b.own = sql.OpenDB(pgxoutbox.Connector(stdlib.GetConnector(*c.ConnConfig)))
	b.own.SetMaxIdleConns(workersMost)
	b.sql, b.pgx = idempotency.NewInbox(b.db, idempotency.Postgres), pgxinbox.New(b.pool)
	if err := b.sql.Migrate(ctx); err != nil {
		return nil, err
	}
	_, err = b.pool.Exec(ctx, fmt.Sprintf(`
CREATE TABLE inbox (consumer text NOT NULL, id uuid NOT NULL, at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (consumer, id));
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO account SELECT g, 0 FROM generate_series(1, %d) g`, workersMost*rows))
	return b, err
}

func (b *bench) close() {
	_ = b.pgx.Close()
	_ = b.db.Close()
	_ = b.own.Close()
	b.pool.Close()
}

// rest clears the hand-written inbox and dead rows of the business table.
func (b *bench) rest() error {
	if _, err := b.pool.Exec(b.ctx, "TRUNCATE inbox"); err != nil {
		return err
	}
	_, err := b.pool.Exec(b.ctx, "VACUUM account")
	return err
}

func account(worker int) int { return worker*rows + rand.IntN(rows) + 1 }

func newID() uuid.UUID { return uuid.Must(uuid.NewV7()) }

func newMark() idempotency.Mark {
	return idempotency.Mark{Consumer: "orders", Source: "shop", ID: newID().String()}
}

func newMarks(n int) []idempotency.Mark {
	all := make([]idempotency.Mark, n)
	for i := range all {
		all[i] = newMark()
	}
	return all
}

// table compares variants of one job.
type table struct {
	title             string
	workers, messages int
	variants          []variant
	prepare           func() error
}

func (b *bench) tables(marks int) []table {
	var all []table
	for _, workers := range []int{1, 8} {
		messages := 200 * workers // few and many rounds, for the disk has moods
		all = append(all,
			table{fmt.Sprintf("pgx, %d workers", workers), workers, messages, b.onPgx(), b.forget},
			table{fmt.Sprintf("database/sql, %d workers", workers), workers, messages, b.onSQL(), b.forget},
		)
	}
	all = append(all, table{"duplicates, pgx", 1, 1000, b.duplicates(), b.forget}, table{"duplicates in memory", 1, 20_000, b.inMemory(), nil})
	if marks > 0 {
		all = append(all, table{fmt.Sprintf("growth, %d marks", marks), 1, 200, b.growth(), func() error { return b.fill(marks) }})
	}
	return all
}

// compare measures the variants of a table after a rest each.
func (b *bench) compare(t table) rounds.Table {
	c := rounds.Table{Title: t.title, Of: "message", Warm: true}
	for _, v := range t.variants {
		c.Variants = append(c.Variants, rounds.Variant{Name: v.name, Prepare: b.rest, Run: func() (rounds.Sample, error) {
			return v.measure(t.workers, t.messages)
		}})
	}
	return c
}

// forget empties our inbox.
func (b *bench) forget() error {
	_, err := b.pool.Exec(b.ctx, "TRUNCATE millrace_inbox")
	return err
}

// fill puts marks of other events into a table of their own.
func (b *bench) fill(marks int) error {
	if err := b.large().Migrate(b.ctx); err != nil {
		return err
	}
	_, err := b.pool.Exec(b.ctx, `INSERT INTO large_inbox SELECT 'orders', 'shop', gen_random_uuid()::text, g FROM generate_series(1, $1) g`, marks)
	if err != nil {
		return err
	}
	_, err = b.pool.Exec(b.ctx, "VACUUM ANALYZE large_inbox")
	if err == nil {
		_, err = b.pool.Exec(b.ctx, "CHECKPOINT")
	}
	return err
}

// pgxWithout remembers nothing in memory.
func (b *bench) pgxWithout() *pgxinbox.Inbox {
	return pgxinbox.New(b.pool, idempotency.Recent(0))
}

func (b *bench) large() *idempotency.Inbox {
	return idempotency.NewInbox(b.db, idempotency.Postgres, idempotency.Table("large_inbox"))
}
