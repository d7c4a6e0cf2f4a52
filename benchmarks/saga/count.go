package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/internal/roundtrips"
	"github.com/millrace-go/millrace/saga"
)

// count counts transactions, round trips and what is written to the log of the
// database for one saga of each variant, on a single connection.
func (b *bench) count() error {
	var t traffic
	c, err := pgxpool.ParseConfig(b.pool.Config().ConnString())
	if err != nil {
		return err
	}
	c.MaxConns, c.ConnConfig.DialFunc, c.ConnConfig.Tracer = 1, t.trips.Dial, &t
	pool, err := pgxpool.NewWithConfig(b.ctx, c)
	if err != nil {
		return err
	}
	defer pool.Close()
	one := &bench{plan: b.plan, ctx: b.ctx, pool: pool, db: stdlib.OpenDBFromPool(pool)}
	defer func() { _ = one.db.Close() }()
	if one.pgx, err = onPgx(b.ctx, pool, "millrace"); err != nil {
		return err
	}
	defer func() { _ = one.pgx.close() }()
	if one.sql, err = onSQL(b.ctx, one.db, saga.Postgres); err != nil {
		return err
	}
	if err := one.rest(); err != nil {
		return err
	}
	fmt.Print("\n### Counted, for one saga\n\n| | transactions | round trips | bytes of WAL | CPU µs of the server | NOTIFYs beside |\n|---|---|---|---|---|---|\n")
	b.pool.Reset() // whose connections may not have said yet what they did
	for _, v := range one.variants() {
		if err := one.countOne(v, &t); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) countOne(v variant, t *traffic) error {
	const batches, sagas = 20, 50
	least := tally{wal: math.MaxInt64}
	var busy []float64
	for batch := range batches + 1 { // the first prepares statements
		before, err := b.tally(t)
		if err != nil {
			return err
		}
		for range sagas {
			if err := v.run(0); err != nil {
				return err
			}
		}
		after, err := b.tally(t)
		if err != nil {
			return err
		}
		d := after.minus(before)
		if batch > 0 && d.wal < least.wal { // others use the server, too
			least = d
		}
		busy = append(busy, float64(d.busy)/1000/sagas)
	}
	each := func(n int64) float64 { return float64(n) / sagas }
	fmt.Printf("| %s | %.2f | %.2f | %.0f | %.0f | %.2f |\n", v.name, each(least.transactions), each(least.trips), each(least.wal), rounds.Median(busy), each(least.notices))
	return nil
}

// tally is what has happened so far. busy is the time that the connection's
// process has had on the server, in nanoseconds; 0 if that is another machine.
type tally struct{ transactions, trips, wal, notices, busy int64 }

// minus leaves out the NOTIFYs, which are counted for themselves, and the tally's
// own two transactions and round trips.
func (t tally) minus(before tally) tally {
	notices := t.notices - before.notices
	return tally{t.transactions - before.transactions - notices - 2, t.trips - before.trips - notices - 2, t.wal - before.wal, notices, t.busy - before.busy}
}

func (b *bench) tally(t *traffic) (all tally, err error) {
	if _, err := b.pool.Exec(b.ctx, `SELECT pg_stat_force_next_flush()`); err != nil {
		return all, err
	}
	var process int
	err = b.pool.QueryRow(b.ctx, `SELECT xact_commit, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint, pg_backend_pid()
		FROM pg_stat_database WHERE datname = current_database()`).Scan(&all.transactions, &all.wal, &process)
	all.trips, all.notices = t.trips.Load(), t.notices.Load()
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", process)); err == nil {
		_, _ = fmt.Sscan(string(stat), &all.busy)
	}
	return all, err
}

// traffic counts round trips and NOTIFYs.
type traffic struct {
	trips   roundtrips.Counter
	notices atomic.Int64
}

func (t *traffic) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if q.SQL == "SELECT pg_notify($1, '')" {
		t.notices.Add(1)
	}
	return ctx
}

func (*traffic) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
