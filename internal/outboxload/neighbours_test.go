package outboxload

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/millrace-go/millrace/outbox"
)

func longKey(i int) string { return fmt.Sprintf("long%d", i) }

// startNeighbours runs transactions that are long for their database.
func (l *load) startNeighbours(ctx context.Context, wg *sync.WaitGroup) {
	if l.long == 0 {
		return
	}
	if l.db.Dialect == outbox.SQLite {
		wg.Go(func() { l.report(ctx, l.long/4) })
		return
	}
	for i := range ownKeys { // half a length apart, so that one is always open
		wg.Go(func() {
			for pause(ctx, time.Duration(i)*l.long/2) {
				l.longWrite(ctx, longKey(i))
				i = 0
			}
		})
	}
	wg.Go(func() { l.report(ctx, 5*l.long) })
}

// longWrite publishes at once and commits late.
func (l *load) longWrite(ctx context.Context, key string) {
	err := l.transact(context.WithoutCancel(ctx), nil, func(x *txn) error {
		for range 2 {
			messages, err := x.count(key, 1+rand.N(3))
			if err != nil {
				return err
			}
			if err := x.publish(messages...); err != nil {
				return err
			}
			pause(ctx, l.long/2)
		}
		if rand.N(5) == 0 {
			return errRollback
		}
		return nil
	})
	if err != nil {
		l.t.Errorf("a long transaction failed: %v", err)
	}
}

// report holds one snapshot for a long time.
func (l *load) report(ctx context.Context, d time.Duration) {
	opts := &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	if l.db.Dialect == outbox.SQLite {
		opts.Isolation = sql.LevelDefault
	}
	for ctx.Err() == nil {
		if err := l.readTwice(ctx, opts, d); err != nil {
			l.t.Errorf("a report failed: %v", err)
			return
		}
	}
}

var errSnapshot = errors.New("the snapshot has changed")

func (l *load) readTwice(ctx context.Context, opts *sql.TxOptions, d time.Duration) error {
	tx, err := l.db.BeginTx(context.WithoutCancel(ctx), opts)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var sums [2]int64
	for i := range sums {
		if err := tx.QueryRow("SELECT CAST(sum(n) AS DECIMAL(18)) FROM counters").Scan(&sums[i]); err != nil {
			return err
		}
		if i == 0 {
			pause(ctx, d)
		}
	}
	if sums[0] != sums[1] {
		return errSnapshot
	}
	return nil
}
