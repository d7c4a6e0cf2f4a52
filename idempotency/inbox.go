package idempotency

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/millrace-go/millrace/idempotency/internal/marks"
	"github.com/millrace-go/millrace/internal/dialect"
)

// Dialect says which database an inbox lives in.
type Dialect = dialect.Dialect

var (
	// SQLite is the dialect of SQLite 3.35 and later.
	SQLite = dialect.SQLite
	// Postgres is the dialect of PostgreSQL 13 and later, by github.com/jackc/pgx's
	// driver for database/sql.
	Postgres = dialect.Postgres
	// MySQL is the dialect of MySQL 8.0.1 and later and of MariaDB 10.6 and later,
	// by github.com/go-sql-driver/mysql.
	MySQL = dialect.MySQL
)

// Inbox remembers, in a table of a SQL database, which events have been
// handled. It is safe for concurrent use and holds no connection of its own;
// there is nothing to close.
type Inbox struct {
	db        *sql.DB
	state     *marks.State
	retention time.Duration
	logger    *slog.Logger
	err       error // what was wrong with the arguments of NewInbox

	pruned atomic.Int64 // the time up to which old marks have been deleted
}

// Option configures an Inbox.
type Option func(*marks.Config)

// Table sets the name of the table, for several inboxes in one database: 1 to 40
// letters, digits or '_', and the name of a schema with a '.' before it if it
// lies in one. Services that share a database need no inbox each: marks carry
// the consumer's name. Defaults to "millrace_inbox".
func Table(prefix string) Option { return func(c *marks.Config) { c.Prefix = prefix } }

// Retention is how long marks are kept. An event that comes again after that is
// handled again, so it must be longer than the broker may redeliver, and longer
// than a dead letter may wait before it is sent back. Defaults to 30 days.
func Retention(d time.Duration) Option { return func(c *marks.Config) { c.Retention = d } }

// Recent is how many of the events that were handled last are also remembered in
// memory, about 100 bytes each, where a duplicate costs no round trip. What is
// remembered was committed before. 0 remembers none. Defaults to 8192.
func Recent(events int) Option { return func(c *marks.Config) { c.Recent = events } }

// Logger sets the logger of Run. Defaults to slog.Default() at the time of
// logging.
func Logger(l *slog.Logger) Option { return func(c *marks.Config) { c.Logger = l } }

// NewInbox returns the inbox in db. It does not touch the database: its table is
// made by Migrate or from Schema. Whatever is wrong with the arguments is
// returned by every use.
func NewInbox(db *sql.DB, d Dialect, opts ...Option) *Inbox {
	c := marks.Config{Prefix: "millrace_inbox", Retention: DefaultRetention, Recent: 8192}
	for _, opt := range opts {
		opt(&c)
	}
	i := &Inbox{db: db, retention: c.Retention, logger: c.Logger, err: check(db, d, c)}
	if i.err != nil {
		return i
	}
	i.state = marks.NewState(d, c)
	if c.Expose != nil {
		c.Expose(i.state)
	}
	return i
}

func check(db *sql.DB, d Dialect, c marks.Config) error {
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("the database is nil"))
	}
	errs = append(errs, d.Check(), dialect.CheckPrefix(c.Prefix))
	if c.Retention <= 0 {
		errs = append(errs, fmt.Errorf("Retention must be positive, got %v", c.Retention))
	}
	if c.Recent < 0 {
		errs = append(errs, fmt.Errorf("Recent must not be negative, got %d", c.Recent))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("idempotency: NewInbox: %w", err)
	}
	return nil
}

// Schema returns the statements that make the inbox's table, for those with a
// migration tool of their own. They may be executed again without harm. It is
// empty if NewInbox was given bad arguments.
func (i *Inbox) Schema() string {
	if i.err != nil {
		return ""
	}
	return i.state.Dialect.Script(i.state.Table, i.state.Migrations)
}

// Migrate makes the inbox's table if it is missing. It may be called at every
// start, by several processes at once; if there is nothing to do, the right to
// read is enough.
func (i *Inbox) Migrate(ctx context.Context) error {
	if i.err != nil {
		return i.err
	}
	if err := i.state.Dialect.Migrate(ctx, i.db, i.state.Table, i.state.Migrations); err != nil {
		return fmt.Errorf("idempotency: migrate %s: %w", i.state.Table, err)
	}
	return nil
}

func (i *Inbox) log() *slog.Logger {
	l := i.logger
	if l == nil {
		l = slog.Default()
	}
	return l.With("inbox", i.state.Table)
}
