package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/outbox"
)

const (
	orderKey = "order-4711"
	perBatch = 100
)

// enqueueTables compare a business transaction that inserts one row with the
// same one that publishes as well.
func (b *bench) enqueueTables() []rounds.Table {
	var f *forward
	if b.dialect != outbox.SQLite {
		var err error
		if f, err = newForward(b, "enqueue"); err != nil {
			return []rounds.Table{{Title: b.name + ": enqueue", Variants: []rounds.Variant{failing(err)}}}
		}
	}
	var all []rounds.Table
	for _, clients := range []int{1, 8} {
		title := fmt.Sprintf("%s: enqueue one event, clients: %d", b.name, clients)
		all = append(all, rounds.Table{Title: title + ", database/sql", Of: "transaction", Split: 16, Warm: true, Variants: b.onSQL(clients, f)})
		if b.dialect == outbox.Postgres {
			all = append(all, rounds.Table{Title: title + ", pgx", Of: "transaction", Split: 16, Warm: true, Variants: b.onPgx(clients)})
		}
	}
	return append(all, rounds.Table{Title: fmt.Sprintf("%s: enqueue %d events in a transaction", b.name, perBatch), Of: "event", Split: 16, Warm: true, Variants: b.many(f)})
}

func (b *bench) onSQL(clients int, f *forward) []rounds.Variant {
	all := []rounds.Variant{
		b.clients("business transaction alone", clients, func() error { return b.transact(b.insertBusiness) }),
		b.clients("by hand: one INSERT more", clients, func() error {
			return b.transact(func(tx *sql.Tx) error { return errors.Join(b.insertBusiness(tx), b.insertHand(tx, eventbus.NewID())) })
		}),
	}
	if b.dialect == outbox.Postgres {
		all = append(all, b.clients("by hand: INSERT and COMMIT in one round trip, through conn.Raw", clients, b.handRidingSQL))
	}
	all = append(all, b.clients("**millrace**, Transact", clients, b.ours(b.box)))
	if clients > 1 {
		all = append(all, b.withRelay("**millrace**, Transact, a relay publishes meanwhile", clients, b.relayOf(b.box), b.ours(b.box)))
	}
	if b.riding != nil {
		all = append(all, b.clients("**millrace**, Transact, pgxoutbox.Connector", clients, b.ours(b.riding)))
		if clients > 1 {
			all = append(all, b.withRelay("**millrace**, Transact, pgxoutbox.Connector, a relay publishes meanwhile", clients, b.relayOf(b.riding), b.ours(b.riding)))
		}
	}
	if f != nil {
		all = append(all, b.clients("watermill forwarder.Publisher", clients, func() error {
			return b.transact(func(tx *sql.Tx) error {
				if err := b.insertBusiness(tx); err != nil {
					return err
				}
				return f.publish(tx, event(b.ctx, orderKey))
			})
		}))
	}
	return all
}

// ours is one transaction with an event.
func (b *bench) ours(box *outbox.Outbox) func() error {
	return func() error {
		return box.Transact(b.ctx, func(ctx context.Context, tx *sql.Tx) error {
			if err := b.insertBusiness(tx); err != nil {
				return err
			}
			return box.In(tx).Publish(topic, event(ctx, orderKey))
		})
	}
}

func (b *bench) insertBusiness(tx *sql.Tx) error {
	if b.business == nil { // pgx prepares by itself
		_, err := tx.ExecContext(b.ctx, businessPgx, "customer", 42, "note")
		return err
	}
	_, err := tx.StmtContext(b.ctx, b.business).ExecContext(b.ctx, "customer", 42, "note")
	return err
}

func (b *bench) insertHand(tx *sql.Tx, id string) error {
	if b.insert == nil {
		_, err := tx.ExecContext(b.ctx, handPgx, id, topic, orderKey, attributes, payload)
		return err
	}
	_, err := tx.StmtContext(b.ctx, b.insert).ExecContext(b.ctx, id, topic, orderKey, attributes, payload)
	return err
}

// transact is a transaction by hand. SQLite's writers take turns, as nobody would
// have them fight for it.
func (b *bench) transact(fn func(*sql.Tx) error) error {
	if b.dialect == outbox.SQLite {
		b.turn.Lock()
		defer b.turn.Unlock()
	}
	tx, err := b.db.BeginTx(b.ctx, nil)
	if err != nil {
		return err
	}
	if err := fn(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// clients has several goroutines do the same again and again.
func (b *bench) clients(name string, clients int, do func() error) rounds.Variant {
	return rounds.Variant{Name: name, Prepare: b.restNowAndThen, Run: func() (rounds.Sample, error) { return b.parallel(clients, do) }}
}

func (b *bench) parallel(clients int, do func() error) (rounds.Sample, error) {
	errs := make([]error, clients)
	var wg sync.WaitGroup
	start := time.Now()
	for c := range clients {
		wg.Go(func() {
			for n := 0; n < b.transactions && errs[c] == nil; n++ {
				errs[c] = do()
			}
		})
	}
	wg.Wait()
	b.unrested += clients * b.transactions
	return rounds.Sample{N: clients * b.transactions, Took: time.Since(start)}, errors.Join(errs...)
}

// restNowAndThen is rest, often enough for tables to stay small: to empty them
// takes longer than a short round.
func (b *bench) restNowAndThen() error {
	if b.unrested < 20_000 {
		return nil
	}
	return b.rest()
}

// rest empties what enqueueing fills.
func (b *bench) rest() error {
	b.unrested = 0
	tables := []string{"business", "hand_outbox"}
	if b.dialect != outbox.SQLite {
		tables = append(tables, "watermill_enqueue")
	}
	if b.river {
		tables = append(tables, "river_job")
	}
	return errors.Join(b.truncate(tables...), b.reset())
}

// withRelay is clients while a relay is running; only the writers are measured.
func (b *bench) withRelay(name string, clients int, relay newRelay, do func() error) rounds.Variant {
	return b.meanwhile(name, clients, do, func(c *counter) (stop func() error, err error) {
		return b.running(relay(c)), nil
	})
}

// meanwhile is clients while something publishes to a counter.
func (b *bench) meanwhile(name string, clients int, do func() error, start func(*counter) (stop func() error, err error)) rounds.Variant {
	return rounds.Variant{Name: name, Prepare: b.rest, Run: func() (rounds.Sample, error) {
		c := newCounter(1)
		stop, err := start(c)
		if err != nil {
			return rounds.Sample{}, err
		}
		if err := do(); err != nil {
			return rounds.Sample{}, errors.Join(err, stop())
		}
		select {
		case <-c.done:
		case <-time.After(time.Minute):
			return rounds.Sample{}, errors.Join(errors.New("nothing is published"), stop())
		}
		s, err := b.parallel(clients, do)
		s.Note = fmt.Sprintf("%d %% published by then", 100*(c.seen.Load()-1)/int64(s.N))
		return s, errors.Join(err, stop())
	}}
}

type runner interface{ Run(context.Context) error }

// running runs a relay until it is stopped.
func (b *bench) running(r runner) (stop func() error) {
	ctx, cancel := context.WithCancel(b.ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return func() error { cancel(); return <-ended }
}
