package main

import (
	"context"
	"database/sql"
	"errors"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/idempotency"
)

const perBatch = 100

var errDuplicate = errors.New("a new message was taken for a duplicate")

// variant is one way of doing what its siblings do as well. run does the n-th
// operation of a worker; one operation may handle several messages.
type variant struct {
	name  string
	run   func(worker, n int) error
	batch int // messages of one operation; 0 is 1
}

// measure has workers handle messages, as many each.
func (v variant) measure(workers, messages int) (rounds.Sample, error) {
	batch := max(1, v.batch)
	each := max(1, messages/workers/batch)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := 0; n < each && errs[w] == nil; n++ {
				errs[w] = v.run(w, n)
			}
		})
	}
	wg.Wait()
	return rounds.Sample{N: each * workers * batch}, errors.Join(errs...)
}

// alone is the business transaction without an inbox.
func (b *bench) alone(worker, _ int) error {
	return pgx.BeginFunc(b.ctx, b.pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(b.ctx, business, account(worker))
		return err
	})
}

func (b *bench) onPgx() []variant {
	return []variant{
		{name: "business transaction alone", run: b.alone},
		{name: "by hand: SELECT, then INSERT in the transaction", run: b.naive},
		{name: "by hand: INSERT .. ON CONFLICT first", run: b.insertFirst},
		{name: "by hand: (BEGIN, INSERT) in one round trip", run: b.beginWithInsert},
		{name: "by hand: (BEGIN, INSERT, business, COMMIT) in one round trip", run: b.pipelined},
		{name: "**pgxinbox.Transact**", run: func(worker, _ int) error {
			duplicate, err := b.pgx.Transact(b.ctx, newMark(), func(ctx context.Context, tx pgx.Tx) error {
				_, err := tx.Exec(ctx, business, account(worker))
				return err
			})
			return fresh(duplicate, err)
		}},
		{name: "**pgxinbox.Send**: the business statement as a pgx.Batch", run: func(worker, _ int) error {
			var request pgx.Batch
			request.Queue(business, account(worker))
			return fresh(b.pgx.Send(b.ctx, newMark(), &request))
		}},
		{name: "by hand: 100 a transaction, one INSERT .. unnest", run: b.unnest, batch: perBatch},
		{name: "**pgxinbox.Batch** of 100", batch: perBatch, run: func(worker, _ int) error {
			_, err := b.pgx.Batch(b.ctx, newMarks(perBatch), func(ctx context.Context, tx pgx.Tx, _ int) error {
				_, err := tx.Exec(ctx, business, account(worker))
				return err
			})
			return err
		}},
	}
}

const (
	insertMark   = `INSERT INTO inbox (consumer, id) VALUES ($1, $2)`
	insertNew    = insertMark + ` ON CONFLICT DO NOTHING`
	insertUnnest = `INSERT INTO inbox (consumer, id) SELECT $1, unnest($2::uuid[]) ON CONFLICT DO NOTHING RETURNING id`
)

func (b *bench) naive(worker, _ int) error {
	id := newID()
	var one int
	if err := b.pool.QueryRow(b.ctx, `SELECT 1 FROM inbox WHERE consumer = $1 AND id = $2`, "orders", id).Scan(&one); !errors.Is(err, pgx.ErrNoRows) {
		return errors.Join(errDuplicate, err)
	}
	return pgx.BeginFunc(b.ctx, b.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(b.ctx, business, account(worker)); err != nil {
			return err
		}
		_, err := tx.Exec(b.ctx, insertMark, "orders", id)
		return err
	})
}

func (b *bench) insertFirst(worker, _ int) error {
	return pgx.BeginFunc(b.ctx, b.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(b.ctx, insertNew, "orders", newID())
		if err := fresh(tag.RowsAffected() == 0, err); err != nil {
			return err
		}
		_, err = tx.Exec(b.ctx, business, account(worker))
		return err
	})
}

func (b *bench) beginWithInsert(worker, _ int) error {
	conn, err := b.pool.Acquire(b.ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var request pgx.Batch
	request.BeginTx(pgx.TxOptions{})
	request.Queue(insertNew, "orders", newID())
	answer := conn.SendBatch(b.ctx, &request)
	tx := answer.Tx()
	if _, err := answer.Exec(); err != nil {
		return errors.Join(err, answer.Close())
	}
	tag, err := answer.Exec()
	if err := errors.Join(fresh(tag.RowsAffected() == 0, err), answer.Close()); err != nil {
		return err
	}
	if _, err := tx.Exec(b.ctx, business, account(worker)); err != nil {
		return err
	}
	return tx.Commit(b.ctx)
}

func (b *bench) pipelined(worker, _ int) error {
	var request pgx.Batch
	request.Queue("begin")
	request.Queue(insertMark, "orders", newID())
	request.Queue(business, account(worker))
	request.Queue("commit")
	return b.pool.SendBatch(b.ctx, &request).Close()
}

func (b *bench) unnest(worker, _ int) error {
	ids := make([]uuid.UUID, perBatch)
	for i := range ids {
		ids[i] = newID()
	}
	return pgx.BeginFunc(b.ctx, b.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(b.ctx, insertUnnest, "orders", ids); err != nil {
			return err
		}
		for range ids {
			if _, err := tx.Exec(b.ctx, business, account(worker)); err != nil {
				return err
			}
		}
		return nil
	})
}

func fresh(duplicate bool, err error) error {
	if err == nil && duplicate {
		return errDuplicate
	}
	return err
}

func (b *bench) onSQL() []variant {
	effect := func(ctx context.Context, tx *sql.Tx, worker int) error {
		_, err := tx.ExecContext(ctx, business, account(worker))
		return err
	}
	transact := func(fn func(tx *sql.Tx) error) error {
		tx, err := b.db.BeginTx(b.ctx, nil)
		if err != nil {
			return err
		}
		if err := fn(tx); err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	}
	return []variant{
		{name: "business transaction alone", run: func(worker, _ int) error {
			return transact(func(tx *sql.Tx) error { return effect(b.ctx, tx, worker) })
		}},
		{name: "by hand: INSERT .. ON CONFLICT first", run: func(worker, _ int) error {
			return transact(func(tx *sql.Tx) error {
				res, err := tx.ExecContext(b.ctx, insertNew, "orders", newID())
				if err != nil {
					return err
				}
				if n, err := res.RowsAffected(); err != nil || n == 0 {
					return errors.Join(errDuplicate, err)
				}
				return effect(b.ctx, tx, worker)
			})
		}},
		{name: "**Inbox.Transact**", run: b.transactIn(b.sql)},
		{name: "**Inbox.Transact** on pgxoutbox.Connector", run: b.transactIn(idempotency.NewInbox(b.own, idempotency.Postgres))},
		{name: "**Inbox.Batch** of 100", batch: perBatch, run: func(worker, _ int) error {
			_, err := b.sql.Batch(b.ctx, newMarks(perBatch), func(ctx context.Context, tx *sql.Tx, _ int) error { return effect(ctx, tx, worker) })
			return err
		}},
	}
}

func (b *bench) transactIn(inbox *idempotency.Inbox) func(worker, _ int) error {
	return func(worker, _ int) error {
		duplicate, err := inbox.Transact(b.ctx, newMark(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, business, account(worker))
			return err
		})
		return fresh(duplicate, err)
	}
}

func (b *bench) growth() []variant {
	return []variant{
		{name: "Inbox.Transact, few marks", run: b.transactIn(b.sql)},
		{name: "Inbox.Transact, many marks", run: b.transactIn(b.large())},
	}
}

func (b *bench) duplicates() []variant {
	m := newMark()
	never := func(context.Context, pgx.Tx) error { return nil }
	forgetful := b.pgxWithout()
	handled := func(duplicate bool, err error) error {
		if err == nil && !duplicate {
			return errors.New("a duplicate was taken for new")
		}
		return err
	}
	return []variant{
		{name: "business transaction alone", run: b.alone},
		{name: "by hand: SELECT", run: func(_, _ int) error {
			var one int
			err := b.pool.QueryRow(b.ctx, `SELECT 1 FROM millrace_inbox WHERE consumer = $1 AND source = $2 AND id = $3`, m.Consumer, m.Source, m.ID).Scan(&one)
			if errors.Is(err, pgx.ErrNoRows) { // before the first round
				return nil
			}
			return err
		}},
		{name: "**pgxinbox.Transact**, in a run of duplicates", run: func(_, n int) error {
			duplicate, err := forgetful.Transact(b.ctx, m, never)
			if n == 0 { // the first of a round may be the first of all
				return err
			}
			return handled(duplicate, err)
		}},
	}
}

// inMemory compares duplicates that are told from memory alone.
func (b *bench) inMemory() []variant {
	m := newMark()
	inbox := idempotency.NewInbox(b.db, idempotency.Postgres) // nothing else happens to it that it would remember instead
	_, err := inbox.Transact(b.ctx, m, func(context.Context, *sql.Tx) error { return nil })
	msg := message.NewMessage(m.ID, make([]byte, 1024))
	dedup := (&middleware.Deduplicator{}).Middleware(func(*message.Message) ([]*message.Message, error) { return nil, nil })
	return []variant{
		{name: "Watermill's Deduplicator, 1 KiB", run: func(_, _ int) error {
			_, err := dedup(msg)
			return err
		}},
		{name: "**Inbox.Transact**, remembered", run: func(_, _ int) error {
			duplicate, failed := inbox.Transact(b.ctx, m, nil)
			if !duplicate {
				return errors.Join(err, failed, errors.New("it was not remembered"))
			}
			return failed
		}},
	}
}
