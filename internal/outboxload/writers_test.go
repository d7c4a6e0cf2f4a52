package outboxload

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/outbox"
)

const topic = "load"

// txn is a business transaction of a writer.
type txn struct {
	*load
	ctx   context.Context
	tx    *sql.Tx
	truth []wire // what it has published
}

// errRollback is how a writer says that it has changed its mind.
var errRollback = errors.New("rolled back")

func (l *load) writeMany() {
	for range l.transactions {
		l.think(2 * time.Millisecond)
		var err error
		if l.writer != nil {
			err = l.writer(l)
		} else {
			err = l.transact(l.t.Context(), nil, l.write)
		}
		if err != nil {
			l.t.Errorf("a transaction failed: %v", err)
			return
		}
	}
}

// think pauses for a while, more often than not a short one.
func (l *load) think(most time.Duration) {
	if d := rand.N(most); rand.N(3) == 0 {
		<-time.After(d)
	}
}

// transact runs body in a transaction, again if the database wants that, and
// notes in the same transaction what it has published.
func (l *load) transact(ctx context.Context, opts *sql.TxOptions, body func(x *txn) error) error {
	for try := 0; ; try++ {
		err := l.try(ctx, opts, body)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errRollback):
			l.rolledBack.Add(1)
			return nil
		case !l.db.Dialect.IsBusy(err) || try > 50:
			return err
		}
		l.retried.Add(1)
		<-time.After(rand.N(5 * time.Millisecond << min(try, 5)))
	}
}

func (l *load) try(ctx context.Context, opts *sql.TxOptions, body func(x *txn) error) error {
	done, err := l.db.Dialect.Turn(ctx, l.db.DB)
	if err != nil {
		return err
	}
	defer done()
	tx, err := l.db.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	x := &txn{load: l, ctx: ctx, tx: tx}
	if err := body(x); err != nil {
		return err
	}
	if err := x.note(); err != nil {
		return err
	}
	return tx.Commit()
}

func (l *load) key() string { return fmt.Sprintf("k%d", rand.N(l.keys)) }

// inside is the time for thinking while a transaction is open; SQLite has one
// writer at a time.
func (x *txn) inside() {
	if x.db.Dialect != outbox.SQLite {
		x.think(4 * time.Millisecond)
	}
}

// business counts one or two keys up, publishes the numbers, and rolls back every
// tenth time.
func business(x *txn) error {
	if err := x.someKeys(5); err != nil {
		return err
	}
	x.inside()
	if rand.N(10) == 0 {
		return errRollback
	}
	return nil
}

// oneOrTwo returns keys in the order in which everybody locks them, but for two
// that now and then are locked the other way round.
func (x *txn) oneOrTwo() []string {
	keys := []string{x.key()}
	switch n := rand.N(600); {
	case n == 0: // rarely: PostgreSQL takes a second to see a deadlock
		return [][]string{{"k0", "k1"}, {"k1", "k0"}}[rand.N(2)]
	case n <= 100:
		keys = append(keys, x.key())
		slices.Sort(keys)
	}
	return slices.Compact(keys)
}

// someKeys publishes up to most events of each of one or two keys, in one call or
// in several.
func (x *txn) someKeys(most int) error {
	keys := x.oneOrTwo()
	var all []*message.Message
	for _, key := range keys {
		messages, err := x.count(key, 1+rand.N(most))
		if err != nil {
			return err
		}
		all = append(all, messages...)
		x.inside()
	}
	if rand.N(3) > 0 {
		return x.publish(all...)
	}
	for _, m := range all {
		if err := x.publish(m); err != nil {
			return err
		}
		x.inside()
	}
	return nil
}

// count adds to the counter of a key, which locks it until the end of the
// transaction, and returns an event for each number.
func (x *txn) count(key string, events int) ([]*message.Message, error) {
	q := x.db.Dialect.Rebind
	if _, err := x.tx.ExecContext(x.ctx, q("UPDATE counters SET n = n + ? WHERE k = ?"), events, key); err != nil {
		return nil, err
	}
	var n int64
	if err := x.tx.QueryRowContext(x.ctx, q("SELECT n FROM counters WHERE k = ?"), key).Scan(&n); err != nil {
		return nil, err
	}
	var messages []*message.Message
	for i := range events {
		messages = append(messages, x.event(key, n-int64(events-1-i)))
	}
	return messages, nil
}

func (x *txn) event(key string, n int64) *message.Message {
	m := &message.Message{
		UUID:     strconv.FormatInt(x.ids.Add(1), 10),
		Metadata: message.Metadata{driver.MetadataKey: key},
		Payload:  []byte(strconv.FormatInt(n, 10)),
	}
	m.SetContext(x.ctx)
	return m
}

func (x *txn) publish(messages ...*message.Message) error {
	if err := x.box.In(x.tx).Publish(topic, messages...); err != nil {
		return err
	}
	x.published(messages...)
	return nil
}

func (x *txn) published(messages ...*message.Message) {
	for _, m := range messages {
		n, _ := strconv.ParseInt(string(m.Payload), 10, 64)
		x.truth = append(x.truth, wire{m.UUID, driver.Key(m), n})
	}
}

// note writes down what was published, so that it is known exactly what was
// committed.
func (x *txn) note() error {
	if len(x.truth) == 0 {
		return nil
	}
	text, args := noteSQL(x.truth)
	_, err := x.tx.ExecContext(x.ctx, x.db.Dialect.Rebind(text), args...)
	return err
}

func noteSQL(truth []wire) (text string, args []any) {
	for _, e := range truth {
		id, _ := strconv.ParseInt(e.ID, 10, 64)
		args = append(args, id, e.Key, e.N)
	}
	return "INSERT INTO truth (id, k, n) VALUES " + strings.TrimSuffix(strings.Repeat("(?,?,?),", len(truth)), ","), args
}
