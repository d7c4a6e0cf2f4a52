package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/eventbus"
)

const (
	businessPgx = "INSERT INTO business (customer, amount, note) VALUES ($1, $2, $3)"
	handPgx     = "INSERT INTO hand_outbox (id, topic, ordering_key, metadata, payload) VALUES ($1, $2, $3, $4, $5)"
)

func queueBusiness(batch *pgx.Batch) { batch.Queue(businessPgx, "customer", 42, "note") }

func queueHand(batch *pgx.Batch, id string) {
	batch.Queue(handPgx, id, topic, orderKey, attributes, payload)
}

func (b *bench) onPgx(clients int) []rounds.Variant {
	q, err := newQueue(b)
	if err != nil {
		return []rounds.Variant{failing(err)}
	}
	b.river = true
	all := []rounds.Variant{
		b.clients("business transaction alone", clients, func() error { return b.transactPgx(nil) }),
		b.clients("by hand: one INSERT more", clients, func() error {
			return b.transactPgx(func(tx pgx.Tx) error {
				_, err := tx.Exec(b.ctx, handPgx, eventbus.NewID(), topic, orderKey, attributes, payload)
				return err
			})
		}),
		b.clients("by hand: INSERT and COMMIT in one round trip", clients, func() error { return b.handRiding(false) }),
		b.clients("by hand: all in one round trip", clients, b.handPipelined),
		b.clients("**pgxoutbox**, Transact", clients, b.oursPgx),
		b.clients("**pgxoutbox**, InBatch and Send", clients, b.oursPipelined),
	}
	if clients > 1 {
		all = append(all,
			b.clients("by hand: INSERT, NOTIFY and COMMIT in one round trip", clients, func() error { return b.handRiding(true) }),
			b.handMeanwhile("by hand: INSERT and COMMIT in one round trip, poke, a loop publishes meanwhile", clients),
			b.withRelay("**pgxoutbox**, Transact, a relay publishes meanwhile", clients, b.pgxRelay, b.oursPgx),
			b.withRelay("**pgxoutbox**, InBatch and Send, a relay publishes meanwhile", clients, b.pgxRelay, b.oursPipelined),
		)
	}
	return append(all, b.clients("River, InsertTx", clients, func() error {
		return b.transactPgx(func(tx pgx.Tx) error { return q.enqueue(tx, "") })
	}))
}

func (b *bench) transactPgx(more func(pgx.Tx) error) error {
	return pgx.BeginFunc(b.ctx, b.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(b.ctx, businessPgx, "customer", 42, "note"); err != nil || more == nil {
			return err
		}
		return more(tx)
	})
}

func (b *bench) oursPgx() error {
	return b.pgx.Transact(b.ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, businessPgx, "customer", 42, "note"); err != nil {
			return err
		}
		return b.pgx.In(tx).Publish(topic, event(ctx, orderKey))
	})
}

func (b *bench) oursPipelined() error {
	batch := &pgx.Batch{}
	queueBusiness(batch)
	if err := b.pgx.InBatch(batch).Publish(topic, event(b.ctx, orderKey)); err != nil {
		return err
	}
	return b.pgx.Send(b.ctx, batch)
}

func (b *bench) handPipelined() error {
	batch := &pgx.Batch{}
	queueBusiness(batch)
	queueHand(batch, eventbus.NewID())
	return b.pool.SendBatch(b.ctx, batch).Close()
}

// handRiding is begin, business, and the rest in one round trip.
func (b *bench) handRiding(notify bool) error {
	conn, err := b.pool.Acquire(b.ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return b.ride(conn.Conn(), notify)
}

func (b *bench) ride(conn *pgx.Conn, notify bool) error {
	if _, err := conn.Exec(b.ctx, "begin"); err != nil {
		return err
	}
	if _, err := conn.Exec(b.ctx, businessPgx, "customer", 42, "note"); err != nil {
		return err
	}
	return b.rideEnd(conn, eventbus.NewID(), notify)
}

func (b *bench) rideEnd(conn *pgx.Conn, id string, notify bool) error {
	batch := &pgx.Batch{}
	queueHand(batch, id)
	if notify {
		batch.Queue("SELECT pg_notify('hand_outbox', '')")
	}
	batch.Queue("commit")
	return conn.SendBatch(b.ctx, batch).Close()
}

// handRidingSQL is the same for who has an sql.DB.
func (b *bench) handRidingSQL() error {
	conn, err := b.db.Conn(b.ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.ExecContext(b.ctx, "begin"); err != nil {
		return err
	}
	if _, err := conn.ExecContext(b.ctx, businessPgx, "customer", 42, "note"); err != nil {
		return err
	}
	return conn.Raw(func(raw any) error { return b.rideEnd(raw.(*stdlib.Conn).Conn(), eventbus.NewID(), false) })
}

// handMeanwhile has the hand-written loop publish what is written by hand.
func (b *bench) handMeanwhile(name string, clients int) rounds.Variant {
	poke := make(chan struct{}, 1)
	return b.meanwhile(name, clients, func() error {
		err := b.handRiding(false)
		wake(poke)
		return err
	}, func(c *counter) (stop func() error, err error) {
		return b.handRunning(poke, func(_, payload []byte) { c.hit(payload) }), nil
	})
}

// handRunning runs the hand-written loop on its own table until it is stopped.
func (b *bench) handRunning(poke <-chan struct{}, publish func(id, payload []byte)) (stop func() error) {
	return b.running(runFunc(func(ctx context.Context) error {
		conn, err := b.pool.Acquire(b.ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		h := handLoop{conn: conn.Conn(), table: "hand_outbox", key: "ordering_key", publish: publish}
		for ctx.Err() == nil {
			before := h.cursor
			_, err := h.step(b.ctx, h.cursor != h.recorded)
			if err != nil {
				return fmt.Errorf("the hand-written loop: %w", err)
			}
			if h.cursor != before {
				continue
			}
			select {
			case <-poke:
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
		return nil
	}))
}

type runFunc func(context.Context) error

func (f runFunc) Run(ctx context.Context) error { return f(ctx) }

// wake wakes whoever waits for ch, or the next one to do so.
func wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
