package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
)

// variant is one way of running a saga of three steps.
type variant struct {
	name string
	run  func(worker int) error
}

const (
	mergedName = "by hand, start merged into step 1: 3 round trips"
	pipeName   = "by hand, start and 3 transitions: 4 round trips"
	pgxName    = "**millrace**, pgx"
	sqlName    = "**millrace**, database/sql"
)

// variants are those on PostgreSQL.
func (b *bench) variants() []variant {
	return []variant{
		{"four single-row UPDATEs, autocommit", b.floor},
		{"by hand, start and 3 transitions of four round trips", b.plain},
		{pipeName, b.pipelined},
		{mergedName, b.merged},
		{pgxName, func(int) error { return b.pgx.execute(b.ctx) }},
		{sqlName, func(int) error { return b.sql.execute(b.ctx) }},
	}
}

// compared is the table of all variants with a number of workers.
func (b *bench) compared(workers int) rounds.Table {
	t := b.table(fmt.Sprintf("PostgreSQL, %d concurrent", workers), workers, b.variants())
	t.Variants = append(t.Variants, b.timed("**millrace** on SQLite, for information", workers, func(int) error { return b.info.execute(b.ctx) }))
	t.Compare = [][2]string{{pgxName, mergedName}, {pgxName, pipeName}, {sqlName, mergedName}, {sqlName, pipeName}}
	return t
}

func (b *bench) table(title string, workers int, variants []variant) rounds.Table {
	t := rounds.Table{Title: title, Of: "saga", Speed: true, Warm: true}
	for _, v := range variants {
		t.Variants = append(t.Variants, b.timed(v.name, workers, v.run))
	}
	return t
}

// timed runs sagas after a rest, and notes how long single ones took.
func (b *bench) timed(name string, workers int, run func(worker int) error) rounds.Variant {
	return rounds.Variant{Name: name, Prepare: b.rest, Run: func() (rounds.Sample, error) { return b.together(workers, perRound(workers), run) }}
}

// perRound is how many sagas are run in one round.
func perRound(workers int) int { return min(200*workers, 1600) }

// together has workers run n sagas between them.
func (b *bench) together(workers, n int, run func(worker int) error) (rounds.Sample, error) {
	ctx, cancel := context.WithCancelCause(b.ctx)
	defer cancel(nil)
	took := make([][]time.Duration, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := 0; i < n/workers && ctx.Err() == nil; i++ {
				start := time.Now()
				if err := run(w); err != nil {
					cancel(err)
				}
				took[w] = append(took[w], time.Since(start))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(took...)
	slices.Sort(all)
	s := rounds.Sample{N: len(all)}
	if len(all) > 0 {
		s.Note = fmt.Sprintf("p50 %s, p99 %s ms", millis(all[len(all)/2]), millis(all[len(all)*99/100]))
	}
	return s, context.Cause(ctx)
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()*1000) }
