// Package outboxload writes to an outbox from many sides at once, kills its
// relays and cuts the way to the broker, and checks that every committed event
// arrives, none from a transaction that was rolled back, and those of each key
// in commit order.
//
// The short form is part of every run of the tests; MILLRACE_OUTBOX=full asks for
// the full one.
package outboxload

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

func TestMain(m *testing.M) {
	if relayMain() {
		return
	}
	goleak.VerifyTestMain(m, // but for what Toxiproxy leaves behind when a proxy is closed
		goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"))
}

// plan is how much is written, and what happens meanwhile.
type plan struct {
	writers, transactions, keys int
	relays                      int
	killEvery                   time.Duration // 0: never
	cutEvery                    time.Duration
	long                        time.Duration // of the neighbours' transactions; 0: there are none
	write                       func(x *txn) error
	writer                      func(l *load) error // a transaction of a writer; nil: one that calls write
	beside                      func(l *load) error // runs again and again until the writers have ended
}

func full() bool { return os.Getenv("MILLRACE_OUTBOX") == "full" }

// sized returns the plan of the form that was asked for.
func sized(write func(x *txn) error) plan {
	if full() {
		return plan{
			writers: 16, transactions: 5000, keys: 200, relays: 3,
			killEvery: time.Second, cutEvery: 3 * time.Second, long: 3 * time.Second, write: write,
		}
	}
	return plan{
		writers: 8, transactions: 150, keys: 40, relays: 3,
		killEvery: 700 * time.Millisecond, cutEvery: 900 * time.Millisecond, long: 700 * time.Millisecond, write: write,
	}
}

// aside returns a smaller plan, for what differs in how events are written.
func aside(write func(x *txn) error) plan {
	p := sized(write)
	p.writers, p.relays, p.transactions = 4, 2, 60
	if full() {
		p.transactions = 1500
	}
	return p
}

// inShortFormParallel is for runs that mostly wait for leases to end; in the full
// form they have the machine to themselves.
func inShortFormParallel(t *testing.T) {
	if !full() {
		t.Parallel()
	}
}

// The main run: writers that think and change their minds, neighbours that take
// their time, relays that die and a broker that goes away.
func TestOrderAndCompleteness(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		p := sized(business)
		if db.Dialect == outbox.SQLite && !full() { // one writer at a time takes longer
			p.transactions /= 2
		}
		run(t, db, p)
	})
}

// load is one run.
type load struct {
	plan
	t      *testing.T
	db     testdb.DB
	box    *outbox.Outbox
	broker *broker
	crew   *crew

	ids                 atomic.Int64
	rolledBack, retried atomic.Int64
	gaps, gapBytes      int // the most that the relay's row had
}

func run(t *testing.T, db testdb.DB, p plan) {
	t.Helper()
	l := &load{plan: p, t: t, db: db, broker: newBroker(t)}
	l.box = outbox.New(db.DB, db.Dialect, outbox.Logger(slog.New(slog.DiscardHandler)))
	require.NoError(t, l.box.Migrate(t.Context()))
	l.createTables()
	l.crew = newCrew(l)
	began := time.Now()
	l.writeAll()
	written := time.Now()
	l.awaitAll()
	drained := time.Since(written)
	l.crew.stop()
	committed := l.verify()
	t.Logf("%d events committed in %v, %d transactions rolled back, %d conflicts; %d kills (%d of the active relay), %d cuts; %d repeats; drained %v after the end; at most %d gaps in %d bytes",
		committed, written.Sub(began).Round(time.Millisecond), l.rolledBack.Load(), l.retried.Load(), l.crew.kills, l.crew.activeKills, l.broker.cuts,
		l.broker.repeats(), drained.Round(time.Millisecond), l.gaps, l.gapBytes)
}

// writeAll runs the writers, and beside them all that disturbs, until the writers
// have ended.
func (l *load) writeAll() {
	ctx, cancel := context.WithCancel(l.t.Context())
	defer cancel()
	var writers, others sync.WaitGroup
	others.Go(func() { l.crew.harass(ctx) })
	others.Go(func() { l.broker.disturb(ctx, l.cutEvery) })
	others.Go(func() { l.watchGaps(ctx) })
	l.startNeighbours(ctx, &others)
	if l.beside != nil {
		others.Go(func() {
			for ctx.Err() == nil {
				if err := l.beside(l); err != nil {
					l.t.Errorf("beside the writers: %v", err)
					return
				}
			}
		})
	}
	for range l.writers {
		writers.Go(l.writeMany)
	}
	writers.Wait()
	cancel()
	others.Wait()
}

// patience bounds how long nothing may arrive while something is missing.
const patience = 60 * time.Second

// awaitAll waits until all that was committed has arrived.
func (l *load) awaitAll() {
	l.t.Helper()
	left, since := l.committed(), time.Now()
	for len(left) > 0 {
		before := len(left)
		left = slices.DeleteFunc(left, func(e wire) bool { return l.broker.has(e.ID) })
		if len(left) < before {
			since = time.Now()
		}
		if time.Since(since) > patience {
			l.t.Fatalf("%d of the committed events have not arrived, and nothing for %v: %v\n%s", len(left), patience, left[:min(len(left), 5)], l.crew.logs())
		}
		<-time.After(5 * time.Millisecond)
	}
}
