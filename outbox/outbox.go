package outbox

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-go/millrace/internal/dialect"
)

// Dialect says which database an outbox lives in.
type Dialect = dialect.Dialect

// The dialects that there are.
var (
	// SQLite is version 3.35 or later.
	SQLite = dialect.SQLite
	// Postgres is PostgreSQL 13 or later, by pgx/v5/stdlib or another driver.
	Postgres = dialect.Postgres
	// MySQL is MySQL 8.0.1 or later, or MariaDB 10.6 or later, with InnoDB.
	MySQL = dialect.MySQL
)

// Outbox is a log of events in a SQL database. It is safe for concurrent use
// and holds no connection of its own; there is nothing to close.
type Outbox struct {
	db     *sql.DB
	sql    statements
	source string
	logger *slog.Logger
	err    error // what was wrong with the arguments of New
	poke   func()
	later  atomic.Bool // something was scheduled since the relay last looked

	one        atomic.Pointer[sql.Stmt] // the INSERT of one event, once prepared
	unprepared atomic.Bool              // transactions come from another sql.DB
	pgx        bool                     // the driver is pgx

	readBy    RowReader   // nil: by db
	connsRead atomic.Bool // its connections are rowQueriers

	maxBacklog int64
	backlog    struct {
		sync.Mutex
		size int64
		next time.Time // when to look it up again
	}

	mu    sync.Mutex
	wakes map[chan struct{}]struct{} // one for each running relay of this process
}

// Option configures an Outbox.
type Option func(*config)

type config struct {
	prefix     string
	source     string
	logger     *slog.Logger
	maxBacklog int64
	readBy     RowReader
}

// Table sets the name of the log's table and the prefix of the others, for
// several outboxes in one database: 1 to 40 letters, digits or '_', behind the
// name of a schema and a '.' if they are in another one than the connection's.
// Defaults to "millrace_outbox".
func Table(prefix string) Option { return func(c *config) { c.prefix = prefix } }

// Source sets the source attribute of events that are published outside of any
// handler. Defaults to none, and so to the program's name.
func Source(name string) Option { return func(c *config) { c.source = name } }

// Logger sets the logger. Defaults to slog.Default() at the time of logging.
func Logger(l *slog.Logger) Option { return func(c *config) { c.logger = l } }

// New returns the outbox in db, which the transactions given to In should come
// from. It does not touch the database: its tables are
// made by Migrate or from Schema. Whatever is wrong with the arguments is
// returned by every use.
func New(db *sql.DB, d Dialect, opts ...Option) *Outbox {
	c := config{prefix: "millrace_outbox"}
	for _, opt := range opts {
		opt(&c)
	}
	o := &Outbox{db: db, source: c.source, logger: c.logger, maxBacklog: c.maxBacklog, readBy: c.readBy, wakes: map[chan struct{}]struct{}{}}
	o.poke = o.Poke
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("the database is nil"))
	}
	errs = append(errs, d.Check(), dialect.CheckPrefix(c.prefix))
	if c.maxBacklog < 0 {
		errs = append(errs, fmt.Errorf("MaxBacklog must not be negative, got %d", c.maxBacklog))
	}
	if schema, _ := dialect.SplitPrefix(c.prefix); schema != "" && d == SQLite {
		errs = append(errs, fmt.Errorf("table prefix %q: SQLite has no schemas", c.prefix))
	}
	if err := errors.Join(errs...); err != nil {
		o.err = fmt.Errorf("outbox: New: %w", err)
		return o
	}
	o.sql = newStatements(d, c.prefix)
	o.pgx = isPgx(db)
	return o
}

// Name returns the name of the log's table.
func (o *Outbox) Name() string { return o.sql.prefix }

// Poke wakes the relays of this outbox that run in this process, so that they
// look for new rows now and not at their next poll. It is for callers who
// commit transactions by themselves; Transact and idempotency.Once do it. It
// never blocks.
func (o *Outbox) Poke() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for wake := range o.wakes {
		select {
		case wake <- struct{}{}:
		default: // it is awake already
		}
	}
}

// listen registers a channel that Poke sends to.
func (o *Outbox) listen() (wake <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wakes[ch] = struct{}{}
	return ch, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.wakes, ch)
	}
}

func (o *Outbox) log() *slog.Logger {
	l := o.logger
	if l == nil {
		l = slog.Default()
	}
	l = l.With("outbox", o.sql.prefix)
	if o.source != "" {
		l = l.With("source", o.source)
	}
	return l
}
