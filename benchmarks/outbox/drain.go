package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/outbox"
)

// The names of variants that are compared with each other.
const (
	deletes      = "**millrace**, deleting"
	handDeletes  = "by hand: the same, deleting"
	forwards     = "watermill forwarder, its defaults (100)"
	forwardsBest = "watermill forwarder, batches of 1000"
	rivers       = "River, 100 workers"
	riversBest   = "River, 1000 workers, fetch cooldown 1 ms"
)

// slowest is the largest backlog that a forwarder is measured with: its time
// grows with the square of it.
const slowest = 100_000

func (b *bench) drainTables() []rounds.Table {
	var all []rounds.Table
	for _, n := range b.sizes {
		all = append(all, rounds.Table{
			Title: fmt.Sprintf("%s: drain of %s rows", b.name, rounds.Thousands(n)), Of: "event", Speed: true,
			Variants: append(b.drains(n), b.peerDrains(n)...),
			Compare:  [][2]string{{deletes, handDeletes}, {deletes, forwards}, {deletes, forwardsBest}, {deletes, rivers}, {deletes, riversBest}},
		})
	}
	return append(all, b.flat(), b.circumstances())
}

// drains are the hand-written loops, which ratios refer to, and ours.
func (b *bench) drains(n int) []rounds.Variant {
	l := backlog{rows: n}
	all := append(b.handDrains(l), b.relay("**millrace**, Retention 24 h", l, b.relayOf(b.box), outbox.Retention(24*time.Hour)), b.deleting(l))
	if b.dialect == outbox.Postgres {
		all = append(all, b.relay("**millrace**, pgxoutbox.Connector, Retention 24 h", l, b.relayOf(b.riding), outbox.Retention(24*time.Hour)))
		all = append(all, b.relay("**pgxoutbox**, Retention 24 h", l, b.pgxRelay, outbox.Retention(24*time.Hour)))
	}
	return all
}

// deleting drains by ours as it is by default.
func (b *bench) deleting(l backlog) rounds.Variant {
	return b.relay(deletes, l, b.relayOf(b.box))
}

// newRelay makes one of our relays.
type newRelay func(to message.Publisher, opts ...outbox.RelayOption) runner

func (b *bench) relayOf(box *outbox.Outbox) newRelay {
	return func(to message.Publisher, opts ...outbox.RelayOption) runner { return box.Relay(to, opts...) }
}

func (b *bench) pgxRelay(to message.Publisher, opts ...outbox.RelayOption) runner {
	return b.pgx.Relay(to, opts...)
}

// relay drains by ours, which deletes unless it is given a retention.
func (b *bench) relay(name string, l backlog, relay newRelay, opts ...outbox.RelayOption) rounds.Variant {
	return rounds.Variant{Name: name, Prepare: func() error { return b.load(l) }, Run: func() (rounds.Sample, error) {
		if len(opts) == 0 {
			b.loaded = "" // it deletes
		}
		s, err := b.relayDrain(relay, l.rows, opts...)
		if err == nil && len(opts) == 0 {
			s.Note = b.swept()
		}
		return s, err
	}}
}

// relayDrain measures until the last event is published.
func (b *bench) relayDrain(relay newRelay, n int, opts ...outbox.RelayOption) (rounds.Sample, error) {
	c := newCounter(n)
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- relay(c, opts...).Run(ctx) }()
	var s rounds.Sample
	select {
	case <-c.done:
		s = rounds.Sample{N: n, Took: time.Since(start)}
	case err := <-ended:
		return s, errors.Join(errors.New("the relay ended too early"), err)
	case <-time.After(10 * time.Minute):
		return s, fmt.Errorf("the relay has published %d of %d", c.seen.Load(), n)
	}
	cancel()
	return s, <-ended
}

// swept says how many rows were left to delete when the relay had been stopped.
func (b *bench) swept() string {
	var left int
	if err := b.db.QueryRowContext(b.ctx, "SELECT count(*) FROM millrace_outbox").Scan(&left); err != nil {
		return err.Error()
	}
	return rounds.Thousands(left) + " rows left to delete at the end"
}

// peerDrains are the forwarder and, for small backlogs, River.
func (b *bench) peerDrains(n int) []rounds.Variant {
	if b.dialect == outbox.SQLite || n > slowest {
		return nil
	}
	f, err := newForward(b, "drain")
	if err != nil {
		return []rounds.Variant{failing(err)}
	}
	all := []rounds.Variant{f.draining(forwards, 0, n), f.draining(forwardsBest, 1000, n)}
	if b.dialect == outbox.Postgres && n <= 10_000 {
		all = append(all, b.riverDrains(n)...)
	}
	return all
}

func failing(err error) rounds.Variant {
	return rounds.Variant{Name: "none", Run: func() (rounds.Sample, error) { return rounds.Sample{}, err }}
}

// middle is the size that everything is measured with.
func (b *bench) middle() int { return min(slowest, slices.Max(b.sizes)) }

// flat compares ours with itself.
func (b *bench) flat() rounds.Table {
	t := rounds.Table{Title: b.name + ": drain, by size of the backlog", Of: "event"}
	for _, n := range b.sizes {
		t.Variants = append(t.Variants, b.relay(fmt.Sprintf("**millrace**, %s rows, deleting", rounds.Thousands(n)), backlog{rows: n}, b.relayOf(b.box)))
	}
	t.Variants = append(t.Variants, b.keptDrains(b.middle())[0])
	return t
}

// circumstances are what makes other outboxes slow.
func (b *bench) circumstances() rounds.Table {
	n := b.middle()
	l, gaps := backlog{rows: n}, backlog{rows: n, gaps: true}
	t := rounds.Table{Title: fmt.Sprintf("%s: drain of %s rows, under circumstances", b.name, rounds.Thousands(n)), Of: "event", Speed: true}
	t.Variants = append(t.Variants, b.handDrains(l)[0], b.deleting(l))
	t.Variants = append(t.Variants, b.keptDrains(n)...)
	if b.dialect == outbox.SQLite {
		return t
	}
	report := " beside a report (REPEATABLE READ)"
	writer := ", a tenth of the positions missing, a transaction of 3 s always open"
	for _, v := range b.handDrains(l)[:2] {
		t.Variants = append(t.Variants, b.beside(v, report, b.report))
	}
	t.Variants = append(t.Variants, b.beside(b.deleting(l), report, b.report),
		b.beside(b.handDrains(gaps)[0], writer, b.writer), b.beside(b.deleting(gaps), writer, b.writer))
	return t
}

// beside runs a variant while something else goes on.
func (b *bench) beside(v rounds.Variant, what string, begin func() (end func(), err error)) rounds.Variant {
	var end func()
	run := v.Run
	prepare := v.Prepare
	v.Name += what
	v.Prepare = func() (err error) {
		if err = prepare(); err == nil {
			end, err = begin()
		}
		return err
	}
	v.Run = func() (rounds.Sample, error) { defer end(); return run() }
	return v
}
