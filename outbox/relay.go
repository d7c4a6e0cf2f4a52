package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/dialect"
)

// RelayOption configures a Relay.
type RelayOption func(*relayConfig)

type relayConfig struct {
	workers   int
	batch     int
	limit     int
	poll      time.Duration
	lease     time.Duration
	retention time.Duration
	attempts  int
	parkKey   bool
	drain     time.Duration
	routes    []route
}

// route is a publisher of its own for some topics.
type route struct {
	to     message.Publisher
	topics []string
}

// Workers is how many calls of Publish run at a time. Defaults to 4.
func Workers(n int) RelayOption { return func(c *relayConfig) { c.workers = n } }

// Batch is how many messages one call of Publish gets at most; they have
// different keys. Defaults to 100.
func Batch(n int) RelayOption { return func(c *relayConfig) { c.batch = n } }

// InFlight is how many events the relay has handed to its workers and not yet
// published at most; up to two thousand more are read and wait. Defaults to 4000.
func InFlight(n int) RelayOption { return func(c *relayConfig) { c.limit = n } }

// Poll is how often the relay looks for events that nobody poked it for.
// Defaults to 100 ms.
func Poll(every time.Duration) RelayOption { return func(c *relayConfig) { c.poll = every } }

// Lease is how long the outbox belongs to a relay that gives no sign of life; so
// long, at most, a crash delays publishing. At least 100 ms. Defaults to 5 s.
func Lease(d time.Duration) RelayOption { return func(c *relayConfig) { c.lease = d } }

// Retention keeps published events in the log, for inspection and replay, until
// they were written longer than d ago. Defaults to 0: they are deleted once
// published.
func Retention(d time.Duration) RelayOption { return func(c *relayConfig) { c.retention = d } }

// Attempts is after how many failures an event is parked that keeps failing
// while others are accepted. At least 2. Defaults to 10. See the package
// documentation for what counts.
func Attempts(n int) RelayOption { return func(c *relayConfig) { c.attempts = n } }

// ParkKey keeps the order of a key whose event was parked: later events of the
// key park behind it until Unpark. By default they go on without it.
func ParkKey() RelayOption { return func(c *relayConfig) { c.parkKey = true } }

// DrainTimeout bounds how long a relay that is being stopped goes on publishing
// what is in the log. Then the contexts of messages end, and Run waits another
// second for Publish to return. Defaults to 2 s.
func DrainTimeout(d time.Duration) RelayOption { return func(c *relayConfig) { c.drain = d } }

// Route publishes events of these topics to another publisher than the relay's.
// Whether it is down is found out for each publisher by itself. All share the
// bound of [InFlight] and the order of the log, so a publisher that is down slows
// the others, and stops them after 20,000 events. If they must not feel it, give
// it an outbox of its own ([Table]).
func Route(to message.Publisher, topics ...string) RelayOption {
	return func(c *relayConfig) { c.routes = append(c.routes, route{to, topics}) }
}

// Relay moves the events of an outbox to a publisher. Make it with
// [Outbox.Relay] and add it to a service, or call Run.
type Relay struct {
	box    *Outbox
	to     message.Publisher
	cfg    relayConfig
	err    error
	active atomic.Bool

	counters counters
}

var _ eventbus.Runner = (*Relay)(nil)

// Relay returns a relay to any Watermill publisher, which it does not close. Any
// number of relays may run on one outbox, in any processes: one of them is
// active, the others take over when it stops or dies. Whatever is wrong with the
// arguments is returned by Run.
func (o *Outbox) Relay(to message.Publisher, opts ...RelayOption) *Relay {
	c := relayConfig{
		workers: 4, batch: 100, limit: 4000, attempts: 10,
		poll: 100 * time.Millisecond, lease: 5 * time.Second, drain: 2 * time.Second,
	}
	for _, opt := range opts {
		opt(&c)
	}
	r := &Relay{box: o, to: to, cfg: c, err: o.err}
	if err := c.validate(to); err != nil && r.err == nil {
		r.err = fmt.Errorf("outbox: relay of %s: %w", o.sql.prefix, err)
	}
	return r
}

func (c relayConfig) validate(to message.Publisher) error {
	var errs []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	want(to != nil, "the publisher is nil")
	want(c.workers >= 1, "Workers must be at least 1, got %d", c.workers)
	want(c.batch >= 1, "Batch must be at least 1, got %d", c.batch)
	want(c.limit >= 1, "InFlight must be at least 1, got %d", c.limit)
	want(c.poll > 0, "Poll must be positive, got %v", c.poll)
	want(c.lease >= 100*time.Millisecond, "Lease must be at least 100ms, got %v", c.lease)
	want(c.retention >= 0, "Retention must not be negative, got %v", c.retention)
	want(c.attempts >= 2, "Attempts must be at least 2, got %d", c.attempts)
	known := map[string]bool{}
	for _, r := range c.routes {
		want(r.to != nil, "the publisher of Route(%q) is nil", r.topics)
		want(len(r.topics) > 0, "Route to %T names no topic", r.to)
		for _, topic := range r.topics {
			want(!known[topic], "topic %q has two routes", topic)
			known[topic] = true
			errs = append(errs, driver.CheckTopic(topic))
		}
	}
	want(c.drain >= 0, "DrainTimeout must not be negative, got %v", c.drain)
	return errors.Join(errs...)
}

// Run publishes events until ctx ends; it then goes on with what is in the log
// within DrainTimeout, gives up its lease and returns nil. While another relay
// is active it stands by.
//
// It fails at once when the arguments of the relay are wrong or the tables are
// missing, and at the end when the publisher does not return although the
// context of its messages has ended. Errors of the database and the publisher
// are logged and retried.
func (r *Relay) Run(ctx context.Context) error {
	if r.err != nil {
		return r.err
	}
	if err := r.checkTables(ctx); err != nil {
		return fmt.Errorf("outbox: relay of %s: %w", r.box.sql.prefix, err)
	}
	r.box.prepare(ctx)
	wake, stop := r.box.listen()
	defer stop()
	log := r.log()
	for ctx.Err() == nil {
		l, err := r.campaign(ctx, log)
		if err != nil {
			return fmt.Errorf("outbox: relay of %s: %w", r.box.sql.prefix, err)
		}
		if l == nil {
			break
		}
		log.Info("outbox: the relay is active", "token", l.token, "published", l.published)
		r.box.findRowReader(ctx)
		r.active.Store(true)
		err = newTerm(r, l, wake, log).serve(ctx)
		r.active.Store(false)
		if err != nil {
			return fmt.Errorf("outbox: relay of %s: %w", r.box.sql.prefix, err)
		}
	}
	return nil
}

// Active reports whether this relay holds the lease, so that it is the one that
// publishes.
func (r *Relay) Active() bool { return r.active.Load() }

// standbyPoll is how often a relay that stands by looks whether the active one
// has released its lease.
const standbyPoll = time.Second

// campaign waits until the outbox is free and takes it. It returns nil when ctx
// ended, and an error when the tables have gone.
func (r *Relay) campaign(ctx context.Context, log *slog.Logger) (*lease, error) {
	for waited := false; ; {
		l, wait, err := r.box.acquire(ctx, r.owner(), r.cfg.lease)
		switch {
		case ctx.Err() != nil:
			if l != nil {
				r.box.release(l, log)
			}
			return nil, nil
		case errors.Is(err, errNoTables), errors.Is(err, dialect.ErrNewer):
			return nil, err
		case err != nil:
			log.Error("outbox: the relay can't take its lease and tries again", "error", err)
			wait = databasePause
		case l != nil:
			return l, nil
		case !waited:
			waited = true
			log.Info("outbox: another relay is active, standing by")
		}
		if !dialect.Sleep(ctx, min(wait, standbyPoll)) {
			return nil, nil
		}
	}
}

// databasePause is how long the relay waits after an error of the database.
const databasePause = 200 * time.Millisecond

// owner describes this process to whoever reads the relay's row.
func (r *Relay) owner() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s, process %d", host, os.Getpid())
}

func (r *Relay) log() *slog.Logger { return r.box.log().With("to", fmt.Sprintf("%T", r.to)) }
