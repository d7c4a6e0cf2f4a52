package main

import (
	"context"
	"database/sql"
	"errors"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/outbox"
)

const unnest = "INSERT INTO hand_outbox (id, topic, ordering_key, metadata, payload) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bytea[])"

// many is about a transaction with one business row and 100 events.
func (b *bench) many(f *forward) []rounds.Variant {
	var all []rounds.Variant
	if b.dialect == outbox.Postgres {
		all = append(all,
			b.hundred("by hand: COPY, pgx", func() error { return b.transactPgx(b.copyIn) }),
			b.hundred("by hand: INSERT .. SELECT unnest, pgx", func() error { return b.transactPgx(b.unnestPgx) }),
			b.hundred("by hand: INSERT .. SELECT unnest, database/sql", func() error { return b.transact(b.unnestSQL) }),
			b.hundred("**pgxoutbox**, Transact", b.hundredPgx),
			b.hundred("**pgxoutbox**, InBatch and Send", b.hundredPipelined),
		)
	} else {
		all = append(all, b.hundred("by hand: 100 prepared INSERTs", func() error { return b.transact(b.hundredByHand) }))
	}
	all = append(all, b.hundred("**millrace**, Transact", b.hundredSQL(b.box)))
	if b.riding != nil {
		all = append(all, b.hundred("**millrace**, Transact, pgxoutbox.Connector", b.hundredSQL(b.riding)))
	}
	if f != nil {
		all = append(all, b.hundred("watermill forwarder.Publisher, all at once", func() error {
			return b.transact(func(tx *sql.Tx) error {
				return errors.Join(b.insertBusiness(tx), f.publish(tx, events(b.ctx)...))
			})
		}))
	}
	return all
}

// hundred does something with 100 events a tenth as often as others with one.
func (b *bench) hundred(name string, do func() error) rounds.Variant {
	return rounds.Variant{Name: name, Prepare: b.restNowAndThen, Run: func() (rounds.Sample, error) {
		n := max(2, b.transactions/10)
		b.unrested += n * perBatch
		for range n {
			if err := do(); err != nil {
				return rounds.Sample{}, err
			}
		}
		return rounds.Sample{N: n * perBatch}, nil
	}}
}

// events are 100 of one order.
func events(ctx context.Context) []*message.Message {
	all := make([]*message.Message, perBatch)
	for i := range all {
		all[i] = event(ctx, orderKey)
	}
	return all
}

func (b *bench) hundredSQL(box *outbox.Outbox) func() error {
	return func() error {
		return box.Transact(b.ctx, func(ctx context.Context, tx *sql.Tx) error {
			if err := b.insertBusiness(tx); err != nil {
				return err
			}
			return box.In(tx).Publish(topic, events(ctx)...)
		})
	}
}

func (b *bench) hundredPgx() error {
	return b.pgx.Transact(b.ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, businessPgx, "customer", 42, "note"); err != nil {
			return err
		}
		return b.pgx.In(tx).Publish(topic, events(ctx)...)
	})
}

func (b *bench) hundredPipelined() error {
	batch := &pgx.Batch{}
	queueBusiness(batch)
	if err := b.pgx.InBatch(batch).Publish(topic, events(b.ctx)...); err != nil {
		return err
	}
	return b.pgx.Send(b.ctx, batch)
}

func (b *bench) hundredByHand(tx *sql.Tx) error {
	if err := b.insertBusiness(tx); err != nil {
		return err
	}
	own := tx.StmtContext(b.ctx, b.insert)
	for range perBatch {
		if _, err := own.ExecContext(b.ctx, eventbus.NewID(), topic, orderKey, attributes, payload); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) copyIn(tx pgx.Tx) error {
	_, err := tx.CopyFrom(b.ctx, pgx.Identifier{"hand_outbox"}, []string{"id", "topic", "ordering_key", "metadata", "payload"},
		pgx.CopyFromSlice(perBatch, func(int) ([]any, error) {
			return []any{eventbus.NewID(), topic, orderKey, attributes, payload}, nil
		}))
	return err
}

// columns returns 100 rows as arrays.
func columns() []any {
	ids, topics, keys := make([]string, perBatch), make([]string, perBatch), make([]string, perBatch)
	metadata, payloads := make([][]byte, perBatch), make([][]byte, perBatch)
	for i := range ids {
		ids[i], topics[i], keys[i], metadata[i], payloads[i] = eventbus.NewID(), topic, orderKey, attributes, payload
	}
	return []any{ids, topics, keys, metadata, payloads}
}

func (b *bench) unnestPgx(tx pgx.Tx) error {
	_, err := tx.Exec(b.ctx, unnest, columns()...)
	return err
}

func (b *bench) unnestSQL(tx *sql.Tx) error {
	if err := b.insertBusiness(tx); err != nil {
		return err
	}
	_, err := tx.ExecContext(b.ctx, unnest, columns()...)
	return err
}
