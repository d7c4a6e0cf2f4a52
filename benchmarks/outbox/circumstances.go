package main

import (
	"context"
	"database/sql"
	"log/slog"
	"sync"
	"time"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/outbox"
)

// report is a transaction that reads and does not end: it keeps the database
// from cleaning up.
func (b *bench) report() (end func(), err error) {
	tx, err := b.db.BeginTx(b.ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return nil, err
	}
	var n int
	if err := tx.QueryRowContext(b.ctx, "SELECT count(*) FROM business").Scan(&n); err != nil {
		return nil, err
	}
	return func() { _ = tx.Rollback() }, nil
}

const long = 3 * time.Second

// writer keeps a transaction open that has written, for 3 s each; the next one
// begins before the last one ends.
func (b *bench) writer() (end func(), err error) {
	ctx, cancel := context.WithCancel(b.ctx)
	var running sync.WaitGroup
	failed := make(chan error, 3)
	began := make(chan struct{}, 2)
	for range 2 {
		running.Go(func() {
			for ctx.Err() == nil {
				if err := b.hold(ctx, began); err != nil {
					failed <- err
					return
				}
			}
		})
		select {
		case <-began:
		case err := <-failed:
			cancel()
			return nil, err
		}
		if !pause(ctx, long/20) { // so that they end apart from each other
			break
		}
	}
	return func() { cancel(); running.Wait() }, nil
}

// hold writes, and commits after 3 s or when ctx ends.
func (b *bench) hold(ctx context.Context, began chan<- struct{}) error {
	tx, err := b.db.BeginTx(b.ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(b.ctx, b.bind(insertBusiness), "long", 1, ""); err != nil {
		return err
	}
	select {
	case began <- struct{}{}:
	default:
	}
	pause(ctx, long)
	return tx.Commit()
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

const keptTable = "kept_outbox"

// keptDrains drain a log that keeps many published rows.
func (b *bench) keptDrains(n int) []rounds.Variant {
	box := outbox.New(b.db, b.dialect, outbox.Table(keptTable), outbox.Logger(slog.New(slog.DiscardHandler)))
	prepare := func() error {
		if !b.keeps {
			if err := b.keep(box, n); err != nil {
				return err
			}
			b.keeps = true
		}
		return b.rewind(keptTable, int64(b.kept))
	}
	what := ", " + rounds.Thousands(b.kept) + " rows kept"
	all := []rounds.Variant{{Name: "**millrace**, " + rounds.Thousands(n) + " rows, Retention 24 h" + what, Prepare: prepare, Run: func() (rounds.Sample, error) {
		return b.relayDrain(b.relayOf(box), n, outbox.Retention(24*time.Hour))
	}}}
	if b.dialect == outbox.Postgres {
		all = append(all, rounds.Variant{Name: "by hand: gap-aware cursor" + what, Prepare: prepare, Run: func() (rounds.Sample, error) {
			return b.handDrain(keptTable, n, int64(b.kept), false)
		}})
	}
	return all
}

// keep makes a log of rows that were published long ago, small ones to spare the
// disk, and n rows behind them.
func (b *bench) keep(box *outbox.Outbox, n int) error {
	if err := box.Migrate(b.ctx); err != nil {
		return err
	}
	if err := b.fillTemplate(n); err != nil {
		return err
	}
	series := "generate_series(1, ?)"
	expressions := "g, (extract(epoch FROM now()) * 1000)::bigint, convert_to(g::text, 'UTF8'), 'orders.placed', '', '\\x0100', '\\x00' FROM " + series + " AS g"
	switch b.dialect {
	case outbox.MySQL:
		expressions = "seq, unix_timestamp() * 1000, seq, 'orders.placed', '', x'0100', x'00' FROM seq_1_to_100000000 WHERE seq <= ?"
	case outbox.SQLite:
		expressions = "g, unixepoch() * 1000, CAST(g AS BLOB), 'orders.placed', x'', x'0100', x'00' FROM (WITH RECURSIVE s(g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM s WHERE g < ?) SELECT g FROM s)"
	}
	into := "INSERT INTO " + keptTable + " (" + b.columns() + ") SELECT "
	if err := b.exec(into+expressions, b.kept); err != nil {
		return err
	}
	rest := b.columns()[len("position"):]
	if err := b.exec(into+"position + ?"+b.cast()+rest+" FROM template WHERE position <= ?", b.kept, n); err != nil {
		return err
	}
	return b.settle(keptTable)
}
