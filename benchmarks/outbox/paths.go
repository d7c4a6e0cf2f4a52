package main

import (
	"context"
	"database/sql"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/outbox"
)

// paths are the ways from commit to publish, the hand-written one first.
func (b *bench) paths() []path {
	all := []path{b.handPath(), b.ourPath()}
	if b.dialect == outbox.Postgres {
		all = append(all, b.pgxPath(), b.riverPath())
	}
	if b.dialect != outbox.SQLite {
		all = append(all, b.forwardPath())
	}
	return all
}

func (b *bench) ourPath() path {
	return path{
		name: "**millrace**, Transact",
		start: func(published func(string)) (func() error, error) {
			return b.running(b.box.Relay(each(published))), nil
		},
		write: func(committing func(string)) error {
			return b.box.Transact(b.ctx, func(ctx context.Context, tx *sql.Tx) error {
				if err := b.insertBusiness(tx); err != nil {
					return err
				}
				e := event(ctx, orderKey)
				err := b.box.In(tx).Publish(topic, e)
				committing(e.UUID)
				return err
			})
		},
	}
}

func (b *bench) pgxPath() path {
	return path{
		name: "**pgxoutbox**, Transact",
		start: func(published func(string)) (func() error, error) {
			return b.running(b.pgx.Relay(each(published))), nil
		},
		write: func(committing func(string)) error {
			return b.pgx.Transact(b.ctx, func(ctx context.Context, tx pgx.Tx) error {
				if _, err := tx.Exec(ctx, businessPgx, "customer", 42, "note"); err != nil {
					return err
				}
				e := event(ctx, orderKey)
				err := b.pgx.In(tx).Publish(topic, e)
				committing(e.UUID)
				return err
			})
		},
	}
}

// handPath is the hand-written loop with a poke after the commit.
func (b *bench) handPath() path {
	poke := make(chan struct{}, 1)
	p := path{name: "by hand: poke after the commit"}
	p.start = func(published func(string)) (func() error, error) {
		if b.dialect == outbox.Postgres {
			return b.handRunning(poke, func(id, _ []byte) { published(string(id)) }), nil
		}
		return b.handSQLRunning(poke, func(id string, _ []byte) { published(id) }), nil
	}
	p.write = func(committing func(string)) error {
		err := b.transact(func(tx *sql.Tx) error {
			if err := b.insertBusiness(tx); err != nil {
				return err
			}
			id := eventbus.NewID()
			err := b.insertHand(tx, id)
			committing(id)
			return err
		})
		wake(poke)
		return err
	}
	return p
}

// handSQLRunning runs the loop for database/sql on its own table.
func (b *bench) handSQLRunning(poke <-chan struct{}, publish func(id string, payload []byte)) (stop func() error) {
	return b.running(runFunc(func(ctx context.Context) error {
		h := &sqlLoop{bench: b, table: "hand_outbox", key: "ordering_key", publish: publish}
		defer h.close()
		for ctx.Err() == nil {
			before := h.cursor
			if _, err := h.step(); err != nil {
				return err
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

func (b *bench) forwardPath() path {
	var f *forward
	p := path{name: "watermill forwarder, its defaults (polls every second)"}
	p.start = func(published func(string)) (func() error, error) {
		var err error
		if f, err = newForward(b, "latency"); err != nil {
			return nil, err
		}
		if err := f.exec("DROP TABLE IF EXISTS watermill_offsets_latency"); err != nil {
			return nil, err
		}
		stop, err := f.start(0, each(published))
		return func() error { stop(); return nil }, err
	}
	p.write = func(committing func(string)) error {
		return b.transact(func(tx *sql.Tx) error {
			if err := b.insertBusiness(tx); err != nil {
				return err
			}
			e := event(b.ctx, orderKey)
			err := f.publish(tx, e)
			committing(e.UUID)
			return err
		})
	}
	return p
}

func (b *bench) riverPath() path {
	var q *queue
	p := path{name: "River, 100 workers"}
	p.start = func(published func(string)) (func() error, error) {
		var err error
		if q, err = newQueue(b); err != nil {
			return nil, err
		}
		stop, err := q.start(100, 0, func(j job) { published(j.ID) })
		return func() error { stop(); return nil }, err
	}
	p.write = func(committing func(string)) error {
		return b.transactPgx(func(tx pgx.Tx) error {
			id := eventbus.NewID()
			err := q.enqueue(tx, id)
			committing(id)
			return err
		})
	}
	return p
}

// each is a publisher that tells the id of each message.
type each func(id string)

func (f each) Publish(_ string, messages ...*message.Message) error {
	for _, m := range messages {
		f(m.UUID)
	}
	return nil
}

func (each) Close() error { return nil }
