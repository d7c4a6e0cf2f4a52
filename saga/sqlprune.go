package saga

import (
	"context"
	"database/sql"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/dialect"
)

const (
	pruneRows    = 100                   // instances of one transaction
	pruneEntries = 1000                  // of their histories, unless one instance has more
	prunePause   = 20 * time.Millisecond // between two transactions, for other writers
	pruneEvery   = time.Hour
)

var _ eventbus.Runner = (*SQLStore)(nil)

// Prune deletes the instances that ended longer than olderThan ago, with their
// history: those whose last transition was then. It does so in steps of at most a
// hundred instances and about a thousand entries, so that it never holds up
// others for long. It returns how many instances it deleted, also when ctx ends
// or the database fails half-way. Several may run; none waits for another.
func (s *SQLStore) Prune(ctx context.Context, olderThan time.Duration) (int64, error) {
	if s.err != nil {
		return 0, s.err
	}
	before := time.Now().Add(-olderThan).UnixMilli()
	var total int64
	for saga := ""; ; {
		var next sql.NullString
		if err := s.db.QueryRowContext(ctx, s.sql.sagas, saga).Scan(&next); err != nil {
			return total, s.failed("prune", err)
		}
		if !next.Valid {
			return total, nil
		}
		saga = next.String
		for _, status := range everyStatus {
			if !status.Ended() {
				continue
			}
			n, err := s.pruneStatus(ctx, saga, status, before)
			total += n
			if err != nil {
				return total, s.failed("prune", err)
			}
		}
	}
}

// pruneStatus goes through the instances of a saga that have ended in one way.
// Each step begins where the last one ended, so it does not walk over what was
// just deleted.
func (s *SQLStore) pruneStatus(ctx context.Context, saga string, status Status, before int64) (total int64, err error) {
	var from int64
	for {
		var n int
		var last int64
		err := s.sql.dialect.Retry(ctx, func() error {
			return s.sql.dialect.ReadCommitted(ctx, s.db, func(tx *sql.Tx) (err error) {
				n, last, err = s.pruneStep(ctx, tx, saga, status, from, before)
				return err
			})
		})
		if err != nil || n == 0 {
			return total, err
		}
		total, from = total+int64(n), last
		if !dialect.Sleep(ctx, prunePause) {
			return total, context.Cause(ctx)
		}
	}
}

// pruneStep deletes some instances, and returns how many and the time of the last.
func (s *SQLStore) pruneStep(ctx context.Context, tx *sql.Tx, saga string, status Status, from, before int64) (n int, last int64, err error) {
	args, last, err := s.findEnded(ctx, tx, saga, status, from, before)
	if n = len(args) - 1; err != nil || n == 0 {
		return 0, 0, err
	}
	for len(args) < pruneRows+1 { // the statement has so many parameters
		args = append(args, args[len(args)-1])
	}
	for _, statement := range []string{s.sql.drop, s.sql.dropHistory} {
		if _, err := tx.ExecContext(ctx, statement, args...); err != nil {
			return 0, 0, err
		}
	}
	return n, last, nil
}

// findEnded locks some instances and returns the saga and their ids.
func (s *SQLStore) findEnded(ctx context.Context, tx *sql.Tx, saga string, status Status, from, before int64) (args []any, last int64, err error) {
	rows, err := tx.QueryContext(ctx, s.sql.ended, saga, string(status), from, before, pruneRows)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	args = []any{saga}
	for entries := int64(0); rows.Next() && entries < pruneEntries; {
		var id []byte
		var revision int64
		if err := rows.Scan(&id, &revision, &last); err != nil {
			return nil, 0, err
		}
		args, entries = append(args, id), entries+revision
	}
	return args, last, rows.Err()
}

// Run prunes what the Retention does not keep, at once and then about every hour
// until ctx ends; it then returns nil. Errors of the database are logged and
// retried; it fails only, at once, if NewSQLStore was given bad arguments.
func (s *SQLStore) Run(ctx context.Context) error {
	if s.err != nil {
		return s.err
	}
	every := max(time.Second, min(pruneEvery, s.retention/100))
	for {
		n, err := s.Prune(ctx, s.retention)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.log().Error("saga: old instances could not be deleted, trying again", "error", err, "in", every)
		case n > 0:
			s.log().Debug("saga: old instances deleted", "count", n)
		}
		if !dialect.Sleep(ctx, every) {
			return nil
		}
	}
}
