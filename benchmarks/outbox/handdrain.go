package main

import (
	"io"
	"time"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/outbox"
)

func (b *bench) handDrains(l backlog) []rounds.Variant {
	if b.dialect != outbox.Postgres {
		return b.handSQLDrains(l)
	}
	return []rounds.Variant{
		b.hand("by hand: gap-aware cursor", l, false),
		b.hand(handDeletes, l, true),
		{Name: "by hand: gap-aware cursor, on database/sql", Prepare: func() error { return b.load(l) }, Run: func() (rounds.Sample, error) {
			return b.handDrainSQL(l.rows)
		}},
		{Name: "COPY out, the limit of reading", Prepare: func() error { return b.load(l) }, Run: b.copyOut(l.rows)},
	}
}

// hand drains by the hand-written loop.
func (b *bench) hand(name string, l backlog, del bool) rounds.Variant {
	return rounds.Variant{Name: name, Prepare: func() error { return b.load(l) }, Run: func() (rounds.Sample, error) {
		if del {
			b.loaded = ""
		}
		return b.handDrain("millrace_outbox", l.rows, 0, del)
	}}
}

func (b *bench) handDrain(table string, n int, from int64, del bool) (rounds.Sample, error) {
	conn, err := b.pool.Acquire(b.ctx)
	if err != nil {
		return rounds.Sample{}, err
	}
	defer conn.Release()
	c := newCounter(n)
	h := handLoop{conn: conn.Conn(), table: table, key: "key", cursor: from, passed: from, delete: del, publish: func(_, payload []byte) { c.hit(payload) }}
	start := time.Now()
	if err := h.drain(b.ctx, n, h.step); err != nil {
		return rounds.Sample{}, err
	}
	return b.until(c, start), nil
}

func (b *bench) handDrainSQL(n int) (rounds.Sample, error) {
	c := newCounter(n)
	h := handLoop{table: "millrace_outbox", key: "key", publish: func(_, payload []byte) { c.hit(payload) }}
	start := time.Now()
	if err := h.drain(b.ctx, n, h.stepOn(b.db)); err != nil {
		return rounds.Sample{}, err
	}
	return b.until(c, start), nil
}

func (b *bench) copyOut(n int) func() (rounds.Sample, error) {
	return func() (rounds.Sample, error) {
		conn, err := b.pool.Acquire(b.ctx)
		if err != nil {
			return rounds.Sample{}, err
		}
		defer conn.Release()
		_, err = conn.Conn().PgConn().CopyTo(b.ctx, io.Discard, "COPY (SELECT "+b.columns()+" FROM millrace_outbox ORDER BY position) TO STDOUT (FORMAT binary)")
		return rounds.Sample{N: n}, err
	}
}
