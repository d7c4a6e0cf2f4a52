package sqlbus

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-go/millrace/eventbus/driver"
)

const (
	postgresChannel = "millrace"
	// notifyEvery spaces notifications, which all sessions of a database wait for.
	notifyEvery = 5 * time.Millisecond
	// listenCheck is how often a silent listener is asked whether it is there.
	listenCheck = 4 * time.Second
)

// listener tells other processes of what is published, and hears of it from
// them. Nothing depends on it: what it misses is found by polling.
type listener struct {
	cfg *pgx.ConnConfig // nil: neither
	up  atomic.Bool

	mu      sync.Mutex
	pending map[string]struct{}
	poked   chan struct{}
}

func newListener(cfg *pgx.ConnConfig) *listener {
	return &listener{cfg: cfg, pending: map[string]struct{}{}, poked: make(chan struct{}, 1)}
}

func (l *listener) listening() bool { return l.up.Load() }

func (l *listener) watch(s *server, b *Broker) {
	if l.cfg == nil {
		return
	}
	s.working.Go(func() { l.listen(s.open, b) })
	s.working.Go(func() { l.notify(s) })
}

func (l *listener) published(topic string) {
	if l.cfg == nil || driver.CheckTopic(topic) != nil { // Watermill takes any name
		return
	}
	l.mu.Lock()
	l.pending[topic] = struct{}{}
	l.mu.Unlock()
	poke(l.poked)
}

// notify runs outside of the transactions that publish: a NOTIFY takes a lock
// of the whole database until its commit, so that of a transaction with an
// fsync in it would make all others queue up.
func (l *listener) notify(s *server) {
	for wait(s.open, l.poked, time.Hour) {
		l.mu.Lock()
		topics := slices.Collect(maps.Keys(l.pending))
		clear(l.pending)
		l.mu.Unlock()
		if len(topics) > 0 {
			l.send(s, topics)
		}
		wait(s.open, nil, notifyEvery)
	}
}

func (l *listener) send(s *server, topics []string) {
	var calls []string
	for _, topic := range topics { // checked by driver.CheckTopic: no quotes
		calls = append(calls, "pg_notify('"+postgresChannel+"', '"+topic+"')")
	}
	ctx, cancel := context.WithTimeout(s.open, statementTimeout)
	defer cancel()
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return // polling finds it
	}
	defer release(conn)
	if _, err := conn.ExecContext(ctx, "BEGIN; SET LOCAL synchronous_commit = off; SELECT "+strings.Join(calls, ", ")+"; COMMIT"); err != nil {
		clean(conn)
	}
}

func (l *listener) listen(ctx context.Context, b *Broker) {
	for ctx.Err() == nil {
		_ = l.hear(ctx, b) // polling goes on meanwhile, and complains
		l.up.Store(false)
		wait(ctx, nil, jitter(time.Second))
	}
}

func (l *listener) hear(ctx context.Context, b *Broker) error {
	bounded := func(do func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, listenCheck)
		defer cancel()
		return do(ctx)
	}
	var conn *pgx.Conn
	err := bounded(func(ctx context.Context) (err error) {
		if conn, err = pgx.ConnectConfig(ctx, l.cfg); err == nil {
			_, err = conn.Exec(ctx, "LISTEN "+postgresChannel)
		}
		return err
	})
	if conn != nil {
		defer bounded(conn.Close) //nolint:errcheck // nothing to lose
	}
	if err != nil {
		return err
	}
	l.up.Store(true)
	b.wakeAll()
	for {
		var n *pgconn.Notification
		err := bounded(func(ctx context.Context) (err error) { n, err = conn.WaitForNotification(ctx); return err })
		if err == nil {
			b.wake(n.Payload)
			continue
		}
		if ctx.Err() != nil || conn.IsClosed() {
			return err
		}
		if err := bounded(conn.Ping); err != nil {
			return err
		}
	}
}
