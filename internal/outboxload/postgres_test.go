package outboxload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
)

// Savepoints have transaction ids of their own.
func TestPostgresSavepointsRolledBackAfterPublishing(t *testing.T) {
	inShortFormParallel(t)
	run(t, testdb.New(t, outbox.Postgres), aside(func(x *txn) error {
		if err := x.savepoint(); err != nil {
			return err
		}
		return business(x)
	}))
}

// savepoint publishes within a savepoint, and undoes it half of the time.
func (x *txn) savepoint() error {
	if _, err := x.tx.ExecContext(x.ctx, "SAVEPOINT s"); err != nil {
		return err
	}
	before := len(x.truth)
	if err := x.someKeys(3); err != nil {
		return err
	}
	x.inside()
	end := "RELEASE s"
	if rand.N(2) == 0 {
		end = "ROLLBACK TO s"
		x.truth = x.truth[:before]
	}
	_, err := x.tx.ExecContext(x.ctx, end)
	return err
}

// The same by pgx, whose nested transactions are savepoints.
func TestPostgresNestedTransactionsOfPgx(t *testing.T) {
	inShortFormParallel(t)
	db := testdb.New(t, outbox.Postgres)
	pool, err := pgxpool.New(t.Context(), db.DSN)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	box := pgxoutbox.New(pool)
	t.Cleanup(func() { require.NoError(t, box.Close()) })
	p := aside(nil)
	p.writer = func(l *load) error {
		err := box.Transact(t.Context(), func(ctx context.Context, tx pgx.Tx) error { return l.nested(ctx, box, tx) })
		if errors.Is(err, errRollback) {
			l.rolledBack.Add(1)
			return nil
		}
		return err
	}
	run(t, db, p)
}

// nested publishes in a transaction and in one within it, which is undone half of
// the time.
func (l *load) nested(ctx context.Context, box *pgxoutbox.Outbox, tx pgx.Tx) error {
	key := l.key()
	if err := l.publishPgx(ctx, box, tx, key); err != nil {
		return err
	}
	inner, err := tx.Begin(ctx)
	if err != nil {
		return err
	}
	if err := l.publishPgx(ctx, box, inner, key); err != nil {
		return err
	}
	l.think(4 * time.Millisecond)
	if rand.N(2) == 0 {
		err = inner.Rollback(ctx)
	} else {
		err = inner.Commit(ctx)
	}
	if err == nil && rand.N(10) == 0 {
		return errRollback
	}
	return err
}

func (l *load) publishPgx(ctx context.Context, box *pgxoutbox.Outbox, tx pgx.Tx, key string) error {
	x := &txn{load: l, ctx: ctx}
	var n int64
	if err := tx.QueryRow(ctx, "UPDATE counters SET n = n + 1 WHERE k = $1 RETURNING n", key).Scan(&n); err != nil {
		return err
	}
	m := x.event(key, n)
	if err := box.In(tx).Publish(topic, m); err != nil {
		return err
	}
	x.published(m)
	text, args := noteSQL(x.truth)
	_, err := tx.Exec(ctx, l.db.Dialect.Rebind(text), args...)
	return err
}

// The INSERT of the event is the first statement for which the transaction needs
// an id: its key is locked by an advisory lock, which needs none. A reader that
// sees the position missing must not take a snapshot without that id for a proof
// that nobody will fill it.
func TestPostgresTransactionsThatPublishBeforeTheyWrite(t *testing.T) {
	inShortFormParallel(t)
	run(t, testdb.New(t, outbox.Postgres), aside(func(x *txn) error {
		key := x.key()
		if _, err := x.tx.ExecContext(x.ctx, "SELECT pg_advisory_xact_lock(hashtext($1))", key); err != nil {
			return err
		}
		var n int64
		if err := x.tx.QueryRowContext(x.ctx, "SELECT n FROM counters WHERE k = $1", key).Scan(&n); err != nil {
			return err
		}
		x.inside()
		if err := x.publish(x.event(key, n+1)); err != nil {
			return err
		}
		x.inside()
		if _, err := x.tx.ExecContext(x.ctx, "UPDATE counters SET n = n + 1 WHERE k = $1", key); err != nil {
			return err
		}
		if rand.N(10) == 0 {
			return errRollback
		}
		return nil
	}))
}

func TestPostgresManyEventsRolledBackAtOnce(t *testing.T) {
	inShortFormParallel(t)
	run(t, testdb.New(t, outbox.Postgres), aside(func(x *txn) error {
		if rand.N(3) > 0 {
			return business(x)
		}
		key := x.key()
		var all []*message.Message
		for n := range 100 {
			all = append(all, x.event(key, int64(n)))
		}
		if err := x.publish(all...); err != nil {
			return err
		}
		x.inside()
		return errRollback
	}))
}

// A sequence may be set, and it jumps after a crash of the server.
func TestPostgresSequenceThatJumps(t *testing.T) {
	inShortFormParallel(t)
	p := aside(business)
	p.beside = func(l *load) error {
		<-time.After(100 * time.Millisecond)
		var position int64
		return l.db.QueryRow("SELECT setval(s, nextval(s) + 1000000) FROM (SELECT pg_get_serial_sequence('millrace_outbox', 'position')::regclass AS s) AS name").Scan(&position)
	}
	run(t, testdb.New(t, outbox.Postgres), p)
}

// A prepared transaction belongs to no session and may stay open for long.
func TestPostgresPreparedTransactions(t *testing.T) {
	inShortFormParallel(t)
	db := testdb.New(t, outbox.Postgres)
	var most int
	require.NoError(t, db.QueryRow("SELECT current_setting('max_prepared_transactions')::int").Scan(&most))
	p := aside(nil)
	if most < p.writers {
		t.Skipf("the server's max_prepared_transactions is %d; this test wants %d", most, p.writers)
	}
	p.writer = func(l *load) error {
		return l.transact(l.t.Context(), nil, func(x *txn) error {
			if err := x.someKeys(3); err != nil {
				return err
			}
			return x.commitInTwoPhases()
		})
	}
	run(t, db, p)
}

// commitInTwoPhases leaves nothing for Commit to do but a warning.
func (x *txn) commitInTwoPhases() error {
	if err := x.note(); err != nil {
		return err
	}
	x.truth = nil
	id := fmt.Sprintf("load-%d", x.ids.Add(1))
	if _, err := x.tx.ExecContext(x.ctx, "PREPARE TRANSACTION '"+id+"'"); err != nil {
		return err
	}
	x.inside()
	if rand.N(20) == 0 {
		<-time.After(rand.N(300 * time.Millisecond))
	}
	end := "COMMIT PREPARED '"
	if rand.N(10) == 0 {
		end = "ROLLBACK PREPARED '"
		x.rolledBack.Add(1)
	}
	_, err := x.db.ExecContext(x.ctx, end+id+"'")
	return err
}
