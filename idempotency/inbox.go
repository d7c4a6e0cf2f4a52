package idempotency

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/millrace-go/millrace/internal/dialect"
)

// Dialect says which database an inbox lives in.
type Dialect = dialect.Dialect

// SQLite is the dialect of SQLite 3.35 and later.
var SQLite = dialect.SQLite

// Inbox remembers, in a table of a SQL database, which events have been
// handled. It is safe for concurrent use and holds no connection of its own;
// there is nothing to close.
type Inbox struct {
	db        *sql.DB
	sql       statements
	retention time.Duration
	logger    *slog.Logger
	err       error // what was wrong with the arguments of NewInbox
}

// Option configures an Inbox.
type Option func(*config)

type config struct {
	prefix    string
	retention time.Duration
	logger    *slog.Logger
}

// Table sets the name of the table, for several inboxes in one database: 1 to 40
// letters, digits or '_'. Services that share a database need no inbox each:
// marks carry the consumer's name. Defaults to "millrace_inbox".
func Table(prefix string) Option { return func(c *config) { c.prefix = prefix } }

// Retention is how long marks are kept. An event that comes again after that is
// handled again, so it must be longer than the broker may redeliver, and longer
// than a dead letter may wait before it is sent back. Defaults to 30 days.
func Retention(d time.Duration) Option { return func(c *config) { c.retention = d } }

// Logger sets the logger of Run. Defaults to slog.Default() at the time of
// logging.
func Logger(l *slog.Logger) Option { return func(c *config) { c.logger = l } }

// NewInbox returns the inbox in db. It does not touch the database: its table is
// made by Migrate or from Schema. Whatever is wrong with the arguments is
// returned by every use.
func NewInbox(db *sql.DB, d Dialect, opts ...Option) *Inbox {
	c := config{prefix: "millrace_inbox", retention: 30 * 24 * time.Hour}
	for _, opt := range opts {
		opt(&c)
	}
	i := &Inbox{db: db, retention: c.retention, logger: c.logger}
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("the database is nil"))
	}
	errs = append(errs, d.Check(), dialect.CheckPrefix(c.prefix))
	if c.retention <= 0 {
		errs = append(errs, fmt.Errorf("Retention must be positive, got %v", c.retention))
	}
	if err := errors.Join(errs...); err != nil {
		i.err = fmt.Errorf("idempotency: NewInbox: %w", err)
		return i
	}
	i.sql = sqlite(d, c.prefix)
	return i
}

// Schema returns the statements that make the inbox's table, for those with a
// migration tool of their own. They may be executed again without harm. It is
// empty if NewInbox was given bad arguments.
func (i *Inbox) Schema() string {
	if i.err != nil {
		return ""
	}
	return i.sql.dialect.Script(i.sql.table, i.sql.migrations)
}

// Migrate makes the inbox's table if it is missing. It may be called at every
// start, by several processes at once.
func (i *Inbox) Migrate(ctx context.Context) error {
	if i.err != nil {
		return i.err
	}
	if err := i.sql.dialect.Migrate(ctx, i.db, i.sql.table, i.sql.migrations); err != nil {
		return fmt.Errorf("idempotency: migrate %s: %w", i.sql.table, err)
	}
	return nil
}

func (i *Inbox) log() *slog.Logger {
	l := i.logger
	if l == nil {
		l = slog.Default()
	}
	return l.With("inbox", i.sql.table)
}
