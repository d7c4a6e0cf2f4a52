package pgxoutbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/aftercommit"
	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/pgxtx"
	"github.com/millrace-go/millrace/outbox"
)

// Outbox is an outbox in a PostgreSQL database that is used through pgx. It is
// safe for concurrent use.
type Outbox struct {
	*outbox.Outbox
	pool     *pgxpool.Pool
	db       *sql.DB      // on top of pool
	notified atomic.Int64 // when a NOTIFY was last sent, Unix milliseconds

	mu     sync.Mutex
	relays map[*outbox.Relay]struct{} // that run in this process
}

// New returns the outbox in the database of pool. It does not touch the
// database: its tables are made by Migrate or from Schema. Whatever is wrong with
// the arguments is returned by every use.
func New(pool *pgxpool.Pool, opts ...outbox.Option) *Outbox {
	if pool == nil {
		return &Outbox{Outbox: outbox.New(nil, outbox.Postgres, opts...)}
	}
	db := stdlib.OpenDBFromPool(pool)
	opts = append(slices.Clip(opts), outbox.ReadBy(reader(pool)))
	return &Outbox{Outbox: outbox.New(db, outbox.Postgres, opts...), pool: pool, db: db, relays: map[*outbox.Relay]struct{}{}}
}

// Close releases what the outbox holds beside the pool, which stays open: a
// goroutine. Whoever uses the outbox until the end of the program need not call
// it.
func (o *Outbox) Close() error {
	if o.db == nil {
		return nil
	}
	return o.db.Close()
}

// In returns a publisher that writes events as part of tx, which may be nested:
// they are published if and only if it commits. It is [outbox.Outbox.In] for pgx.
//
// In a transaction of Transact, or of package pgxinbox, the events need no round trip
// of their own: they are sent with the COMMIT, or before the next statement, which
// then fails if they can't be written.
func (o *Outbox) In(tx pgx.Tx) message.Publisher {
	return o.waking(func(ctx context.Context, statement string, args ...any) error {
		if tx == nil {
			return driver.Permanent(errors.New("In was given a nil transaction"))
		}
		if own, ok := tx.(*pgxtx.Tx); ok {
			return own.Hold(ctx, statement, args...)
		}
		_, err := tx.Exec(ctx, statement, args...)
		return err
	})
}

// InBatch returns a publisher that queues events behind the statements of b.
// Publish does not fail because of the database; sending the batch does.
func (o *Outbox) InBatch(b *pgx.Batch) message.Publisher {
	return o.waking(func(_ context.Context, statement string, args ...any) error {
		if b == nil {
			return driver.Permanent(errors.New("InBatch was given a nil batch"))
		}
		b.Queue(statement, args...)
		return nil
	})
}

// waking returns a publisher that asks for other processes to be notified.
func (o *Outbox) waking(exec outbox.Exec) message.Publisher {
	return o.Via(func(ctx context.Context, statement string, args ...any) error {
		err := exec(ctx, statement, args...)
		if err == nil {
			aftercommit.Do(ctx, o, func() { o.notify(ctx) })
		}
		return err
	})
}

// Send sends a batch as one transaction, in one round trip once its statements
// are prepared, and wakes the relay. It reports the first statement that failed;
// then nothing of the batch has happened, unless the connection broke: then
// nobody knows. Results of queries are given to the functions the batch was told
// to call (pgx.QueuedQuery).
func (o *Outbox) Send(ctx context.Context, b *pgx.Batch) error {
	if o.pool == nil {
		return o.Migrate(ctx) // which says what was wrong with the arguments
	}
	if err := o.pool.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("pgxoutbox: send a batch: %w", err)
	}
	o.Poke()
	o.notify(ctx)
	return nil
}

// Transact runs fn in a transaction: it begins, calls fn, commits and wakes the
// relay if fn published something with the ctx it was given. What fn publishes by
// [Outbox.In] is sent with the commit. An error or a panic of fn rolls back, events
// included; the error is returned as it is. When the
// database gives the transaction up because of another one (a deadlock, a failed
// serialization), fn is called again in a new one, up to ten times in all, so it
// must have no effects besides.
func (o *Outbox) Transact(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	if o.pool == nil {
		return o.Migrate(ctx) // which says what was wrong with the arguments
	}
	return dialect.Postgres.Retry(ctx, func() error {
		ctx, hooks := aftercommit.With(ctx)
		if err := o.transact(ctx, fn); err != nil {
			return err
		}
		hooks.Run()
		return nil
	})
}

func (o *Outbox) transact(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	conn, err := o.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release() // ends a connection whose transaction is open
	return pgx.BeginFunc(ctx, beginner{conn.Conn()}, func(tx pgx.Tx) error { return fn(ctx, tx) })
}

// beginner begins transactions that may hold statements back.
type beginner struct{ conn *pgx.Conn }

func (b beginner) Begin(ctx context.Context) (pgx.Tx, error) {
	tx, err := b.conn.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return pgxtx.New(tx), nil
}

// notifyEvery is how often a process sends a NOTIFY at most. What is committed
// in between is found by a relay that has just been woken and looks often.
const notifyEvery = 10 * time.Millisecond

// notify wakes the relays of other processes, unless the active one runs
// here. A failure costs time only.
func (o *Outbox) notify(ctx context.Context) {
	now, last := time.Now().UnixMilli(), o.notified.Load()
	if o.active() || now-last < notifyEvery.Milliseconds() || !o.notified.CompareAndSwap(last, now) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = o.pool.Exec(ctx, "SELECT pg_notify($1, '')", o.Name())
}

// active reports whether the relay that publishes runs in this process.
func (o *Outbox) active() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for r := range o.relays {
		if r.Active() {
			return true
		}
	}
	return false
}

// running notes that a relay runs, until the function that it returns is called.
func (o *Outbox) running(r *outbox.Relay) (ended func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.relays[r] = struct{}{}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.relays, r)
	}
}
