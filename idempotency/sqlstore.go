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

// SQLStore is a Store in a table of a SQL database: SQLite, PostgreSQL, MySQL or
// MariaDB. Time is that of the database server, which all processes share; for
// SQLite it is the host's, to the millisecond. It is safe for concurrent use and
// holds no connection of its own; there is nothing to close.
type SQLStore struct {
	db     *sql.DB
	sql    leaseSQL
	logger *slog.Logger
	err    error // what was wrong with the arguments of NewSQLStore
}

// SQLConfig configures a SQLStore or a Barrier.
type SQLConfig struct {
	// Table is the name of the table: 1 to 40 letters, digits or '_', with a schema
	// and a '.' before it if need be. Services may share one, for keys have scopes.
	// Defaults to "millrace_leases" for a store, "millrace_barrier" for a barrier.
	Table string
	// Logger of Run. Defaults to slog.Default() at the time of logging.
	Logger *slog.Logger
}

// NewSQLStore returns the store in db. It does not touch the database: its table
// is made by Migrate or from Schema. Whatever is wrong with the arguments is
// returned by every use.
func NewSQLStore(db *sql.DB, d Dialect, c SQLConfig) *SQLStore {
	orElse(&c.Table, "millrace_leases")
	s := &SQLStore{db: db, logger: c.Logger}
	var errs []error
	if db == nil {
		errs = append(errs, errors.New("the database is nil"))
	}
	if err := errors.Join(append(errs, d.Check(), dialect.CheckPrefix(c.Table))...); err != nil {
		s.err = fmt.Errorf("idempotency: NewSQLStore: %w", err)
		return s
	}
	s.sql = newLeaseSQL(d, c.Table)
	return s
}

var _ Store = (*SQLStore)(nil)

// Schema returns the statements that make the table, for those with a migration
// tool of their own. They may be executed again without harm. It is empty if
// NewSQLStore was given bad arguments.
func (s *SQLStore) Schema() string {
	if s.err != nil {
		return ""
	}
	return s.sql.dialect.Script(s.sql.table, s.sql.migrations)
}

// Migrate makes the table if it is missing. It may be called at every start, by
// several processes at once.
func (s *SQLStore) Migrate(ctx context.Context) error {
	if s.err != nil {
		return s.err
	}
	if err := s.sql.dialect.Migrate(ctx, s.db, s.sql.table, s.sql.migrations); err != nil {
		return fmt.Errorf("idempotency: migrate %s: %w", s.sql.table, err)
	}
	return nil
}

// Claim is the method of Store. It reads the record and then writes it on the
// condition that it is still the same, without a transaction: two statements if
// the key is claimed, one if it is not.
func (s *SQLStore) Claim(ctx context.Context, q ClaimRequest) (Record, error) {
	if s.err != nil {
		return Record{}, s.err
	}
	if err := checkClaim(ctx, q); err != nil {
		return Record{}, err
	}
	for try := 1; ; try++ {
		now, r, err := s.read(ctx, q.Key)
		if err != nil {
			return Record{}, s.failed("claim", q.Key, err)
		}
		state := r.found(now, q)
		if state != StateClaimed {
			return r.answer(state, now), nil
		}
		next := r.claimed(now, q)
		won, err := s.write(ctx, q.Key, r, next, now)
		if err != nil {
			return Record{}, s.failed("claim", q.Key, err)
		}
		if won {
			return Record{State: StateClaimed, Claim: Claim{q.Key, next.token, next.attempt}}, nil
		}
		// Somebody else was quicker, so the next look finds his claim, unless it looks
		// at another database than the one that is written.
		if try == claimTries || !dialect.Sleep(ctx, time.Duration(try-1)*time.Millisecond) {
			return Record{}, s.failed("claim", q.Key, errors.New("the record changed at every look; the database must be the one that is written, not a replica of it"))
		}
	}
}

const claimTries = 50

// read returns the record of k, nil if there is none, and the database's time.
func (s *SQLStore) read(ctx context.Context, k Key) (now int64, r *record, err error) {
	hash := k.Hash()
	var p, token, attempt, until, expires sql.NullInt64
	var fingerprint, result []byte
	err = s.sql.dialect.Retry(ctx, func() error {
		return s.db.QueryRowContext(ctx, s.sql.read, hash[:]).Scan(&now, &p, &token, &attempt, &fingerprint, &until, &expires, &result)
	})
	if err != nil || !token.Valid {
		return now, nil, err
	}
	return now, &record{
		phase: phase(p.Int64), token: token.Int64, attempt: int(attempt.Int64), fingerprint: fingerprint,
		until: until.Int64, expires: expires.Int64, result: result,
	}, nil
}

// write puts next in the place of r, and reports false if r has changed.
func (s *SQLStore) write(ctx context.Context, k Key, r *record, next record, now int64) (bool, error) {
	hash := k.Hash()
	if r == nil {
		return s.exec(ctx, s.sql.insert, hash[:], []byte(k.String()), int(next.phase), next.token, next.attempt,
			next.fingerprint, next.until, next.expires, now)
	}
	return s.exec(ctx, s.sql.take, int(next.phase), next.token, next.attempt, next.fingerprint, next.until, next.expires, now,
		hash[:], r.token, int(r.phase), r.until)
}

// Renew is the method of Store.
func (s *SQLStore) Renew(ctx context.Context, c Claim, lease time.Duration) error {
	us := lease.Microseconds()
	return s.change(ctx, "renew", c, phaseClaimed, s.sql.renew, us, us)
}

// Complete is the method of Store.
func (s *SQLStore) Complete(ctx context.Context, c Claim, result []byte, keep time.Duration) error {
	return s.change(ctx, "complete", c, phaseDone, s.sql.complete, result, keep.Microseconds())
}

// Release is the method of Store.
func (s *SQLStore) Release(ctx context.Context, c Claim) error {
	return s.change(ctx, "release", c, phaseFree, s.sql.release)
}

// change updates the record that c holds. An update that changes nothing, which
// is what MySQL also says of one that would write what is there, is looked into.
func (s *SQLStore) change(ctx context.Context, operation string, c Claim, to phase, statement string, args ...any) error {
	if s.err != nil {
		return s.err
	}
	hash := c.Key.Hash()
	changed, err := s.exec(ctx, statement, append(args, hash[:], c.Token)...)
	if err != nil {
		return s.failed(operation, c.Key, err)
	}
	if changed {
		return nil
	}
	_, r, err := s.read(ctx, c.Key)
	switch {
	case err != nil:
		return s.failed(operation, c.Key, err)
	case r == nil || r.token != c.Token || r.phase != to:
		return fmt.Errorf("idempotency: %s %s: %w", operation, c.Key, ErrLost)
	}
	return nil
}

// exec runs a statement of one row and reports whether it changed something.
func (s *SQLStore) exec(ctx context.Context, statement string, args ...any) (changed bool, err error) {
	err = s.sql.dialect.Retry(ctx, func() error {
		done, err := s.sql.dialect.Turn(ctx, s.db)
		if err != nil {
			return err
		}
		defer done()
		res, err := s.db.ExecContext(ctx, statement, args...)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		changed = n > 0
		return err
	})
	return changed, err
}

func (s *SQLStore) failed(operation string, k Key, err error) error {
	if s.sql.dialect.IsMissingTable(err) {
		err = fmt.Errorf("%w: call Migrate, or apply Schema, before the store is used", err)
	}
	return fmt.Errorf("idempotency: %s %s in %s: %w", operation, k, s.sql.table, err)
}
