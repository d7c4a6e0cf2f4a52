package saga

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/saga/internal/tables"
)

// Dialect says which database a SQLStore lives in.
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

// SQLStore is a Store in tables of a SQL database, beside an outbox and an inbox:
// the mark of the event, the instance, its history and the messages are written
// in one transaction. It is safe for concurrent use and holds no connection of
// its own; there is nothing to close.
//
// # Cost
//
// A Commit on PostgreSQL is five round trips: BEGIN, the mark, the instance with
// its history, the messages, COMMIT. Package pgxsaga needs one. MySQL takes one
// more, if its DSN says interpolateParams=true; otherwise each statement takes
// two. Messages of several topics, and messages that are due later, are one more
// INSERT each. A duplicate that was handled lately in this process is none. Load,
// List, Count and History are one query. The first Pin of a version is three
// statements, others one.
//
// Lists take milliseconds beside millions of instances that have ended, but for
// those by a prefix that most ids begin with. Count reads an index entry of every
// instance of the saga: some tenths of a second for a million.
//
// # What is stored
//
// Times are kept to the millisecond, ids of up to 512 bytes. Ids, states and
// progress are bytes in the tables, so that any are kept as they are; to read a
// state in PostgreSQL's console write convert_from(state, 'UTF8')::json. In texts
// for people (Error, Note, Event, From, To), what is not valid UTF-8 is replaced.
type SQLStore struct {
	db        *sql.DB
	box       *outbox.Outbox
	inbox     *idempotency.Inbox
	sql       statements
	retention time.Duration
	logger    *slog.Logger
	commit    func(ctx context.Context, t tables.Transition) error // nil: by db
	load      func(ctx context.Context, l tables.Lookup) (found bool, err error)
	err       error // what was wrong with the arguments of NewSQLStore
}

var _ Store = (*SQLStore)(nil)

// StoreOption configures a SQLStore.
type StoreOption func(*tables.Config)

// Table sets the name of the table of instances and the prefix of the others, for
// several stores in one database: 1 to 40 letters, digits or '_', behind the name
// of a schema and a '.' if they lie in one. Services that share a database need
// no store each, as long as their sagas have different names. Defaults to
// "millrace_saga".
func Table(prefix string) StoreOption { return func(c *tables.Config) { c.Prefix = prefix } }

// Retention is how long Run keeps instances that have ended, with their history,
// after their last transition. What comes for an instance after that finds none,
// or starts another one of its id; so it must be longer than an event may be on
// its way, a dead letter may wait before it is sent back, and a saga may run that
// would compensate the instance as its sub-saga. Defaults to DefaultRetention.
func Retention(d time.Duration) StoreOption { return func(c *tables.Config) { c.Retention = d } }

// DefaultRetention is how long Run keeps instances that have ended if Retention
// doesn't say.
const DefaultRetention = 90 * 24 * time.Hour

// Logger sets the logger of Run. Defaults to slog.Default() at the time of
// logging.
func Logger(l *slog.Logger) StoreOption { return func(c *tables.Config) { c.Logger = l } }

// NewSQLStore returns the store in db, which is also the database of the outbox
// that takes the sagas' messages and of the inbox that marks their events. It does
// not touch the database: its tables are made by Migrate or from Schema, those of
// the others by theirs. Whatever is wrong with the arguments is returned by every
// use.
func NewSQLStore(db *sql.DB, d Dialect, box *outbox.Outbox, inbox *idempotency.Inbox, opts ...StoreOption) *SQLStore {
	c := tables.Config{Prefix: "millrace_saga", Retention: DefaultRetention}
	for _, opt := range opts {
		opt(&c)
	}
	s := &SQLStore{db: db, box: box, inbox: inbox, retention: c.Retention, logger: c.Logger, commit: c.Commit, load: c.Load}
	if s.load == nil {
		s.load = s.loadByDB
	}
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("the database is nil"))
	}
	if box == nil {
		errs = append(errs, errors.New("the outbox is nil"))
	}
	if inbox == nil {
		errs = append(errs, errors.New("the inbox is nil"))
	}
	errs = append(errs, d.Check(), dialect.CheckPrefix(c.Prefix))
	if c.Retention <= 0 {
		errs = append(errs, fmt.Errorf("Retention must be positive, got %v", c.Retention))
	}
	if err := errors.Join(errs...); err != nil {
		s.err = fmt.Errorf("saga: NewSQLStore: %w", err)
		return s
	}
	s.sql = newStatements(d, c.Prefix)
	return s
}

// Schema returns the statements that make the store's tables, for those with a
// migration tool of their own. They may be executed again without harm. It is
// empty if NewSQLStore was given bad arguments.
func (s *SQLStore) Schema() string {
	if s.err != nil {
		return ""
	}
	return s.sql.dialect.Script(s.sql.prefix, s.sql.migrations)
}

// Migrate makes the store's tables where they are missing, not those of the
// outbox and the inbox. It may be called at every start, by several processes at
// once; if there is nothing to do, the right to read is enough. Beside it the
// store needs the rights to SELECT, INSERT, UPDATE and DELETE on its tables.
func (s *SQLStore) Migrate(ctx context.Context) error {
	if s.err != nil {
		return s.err
	}
	if err := s.sql.dialect.Migrate(ctx, s.db, s.sql.prefix, s.sql.migrations); err != nil {
		return fmt.Errorf("saga: migrate %s: %w", s.sql.prefix, err)
	}
	return nil
}

// failed says what failed and, if there is a remedy, what to do.
func (s *SQLStore) failed(operation string, err error) error {
	if s.sql.dialect.IsMissingTable(err) {
		err = fmt.Errorf("%w: call Migrate, or apply Schema, of the store, its outbox and its inbox before they are used", err)
	}
	return fmt.Errorf("saga: %s in %s: %w", operation, s.sql.prefix, err)
}

func (s *SQLStore) log() *slog.Logger {
	l := s.logger
	if l == nil {
		l = slog.Default()
	}
	return l.With("sagas", s.sql.prefix)
}
