package outboxload

import (
	"database/sql"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

func TestMySQLWritersOfBothIsolationLevels(t *testing.T) {
	inShortFormParallel(t)
	p := aside(nil)
	p.writer = func(l *load) error {
		level := sql.LevelRepeatableRead
		if rand.N(2) == 0 {
			level = sql.LevelReadCommitted
		}
		return l.transact(t.Context(), &sql.TxOptions{Isolation: level}, business)
	}
	run(t, testdb.New(t, outbox.MySQL), p)
}

// An INSERT of several rows takes all its positions at once.
func TestMySQLInsertsOfManyRows(t *testing.T) {
	inShortFormParallel(t)
	run(t, testdb.New(t, outbox.MySQL), aside(func(x *txn) error {
		if err := x.someKeys(40); err != nil {
			return err
		}
		if x.inside(); rand.N(10) == 0 {
			return errRollback
		}
		return nil
	}))
}

// A session that locks the end of the log holds INSERTs up that have taken their
// positions: before their first row, or between two.
func TestMySQLInsertsStalledByAGapLock(t *testing.T) {
	inShortFormParallel(t)
	p := aside(func(x *txn) error {
		if err := x.someKeys(20); err != nil {
			return err
		}
		if x.inside(); rand.N(10) == 0 {
			return errRollback
		}
		return nil
	})
	p.beside = func(l *load) error {
		<-time.After(rand.N(50 * time.Millisecond))
		return l.lockTheEnd(50*time.Millisecond + rand.N(300*time.Millisecond))
	}
	if !full() {
		p.transactions /= 2
	}
	run(t, testdb.New(t, outbox.MySQL), p)
}

func (l *load) lockTheEnd(d time.Duration) error {
	tx, err := l.db.BeginTx(l.t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var last int64
	if err := tx.QueryRow("SELECT coalesce(max(position), 0) FROM millrace_outbox").Scan(&last); err != nil {
		return err
	}
	rows, err := tx.Query("SELECT position FROM millrace_outbox WHERE position > ? FOR UPDATE", last)
	if l.db.Dialect.IsBusy(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for rows.Next() {
	}
	if err := rows.Err(); err != nil && !l.db.Dialect.IsBusy(err) {
		return err
	}
	<-time.After(d)
	return nil
}
