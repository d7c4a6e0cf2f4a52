package idempotency

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/internal/dialect"
)

const (
	dropRows  = 500                   // of one statement
	dropPause = 20 * time.Millisecond // between two of them, for other writers
	dropEvery = 10 * time.Minute
)

// Prune deletes the records whose time is over, in steps of some hundred so that
// it never holds up others for long. Each step goes on where the last one ended,
// so it does not walk over what was just deleted. It returns how many it
// deleted, also when ctx ends or the database fails half-way. Several may run.
func (s *SQLStore) Prune(ctx context.Context) (int64, error) {
	if s.err != nil {
		return 0, s.err
	}
	p := pruning{s.db, s.sql.dialect, s.sql.old, s.sql.drop}
	n, err := p.run(ctx)
	if err != nil {
		return n, fmt.Errorf("idempotency: prune %s: %w", s.sql.table, err)
	}
	return n, nil
}

var _ eventbus.Runner = (*SQLStore)(nil)

// Run prunes at once and then every ten minutes until ctx ends; it then returns
// nil. Errors of the database are logged and retried; it fails only, at once, if
// NewSQLStore was given bad arguments.
func (s *SQLStore) Run(ctx context.Context) error {
	if s.err != nil {
		return s.err
	}
	return pruneForever(ctx, s.logger, s.sql.table, s.Prune)
}

func pruneForever(ctx context.Context, l *slog.Logger, table string, prune func(context.Context) (int64, error)) error {
	for {
		n, err := prune(ctx)
		log := l
		if log == nil {
			log = slog.Default()
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			log.Error("idempotency: old rows could not be deleted, trying again", "table", table, "error", err, "in", dropEvery)
		case n > 0:
			log.Debug("idempotency: old rows deleted", "table", table, "count", n)
		}
		if !dialect.Sleep(ctx, dropEvery) {
			return nil
		}
	}
}

// pruning deletes rows by key_hash, in the order of expires_at.
type pruning struct {
	db      *sql.DB
	dialect Dialect
	old     string // SELECT key_hash, expires_at from a time on; parameters: time, limit
	drop    string // DELETE ... key_hash IN (
}

func (p pruning) run(ctx context.Context) (total int64, err error) {
	var from int64
	for {
		keys, last, err := p.find(ctx, from)
		if err != nil || len(keys) == 0 {
			return total, err
		}
		n, err := p.delete(ctx, keys)
		total += n
		if err != nil || len(keys) < dropRows {
			return total, err
		}
		from = last
		if !dialect.Sleep(ctx, dropPause) {
			return total, context.Cause(ctx)
		}
	}
}

func (p pruning) find(ctx context.Context, from int64) (keys []any, last int64, err error) {
	rows, err := p.db.QueryContext(ctx, p.old, from, dropRows)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var key []byte
		if err := rows.Scan(&key, &last); err != nil {
			return nil, 0, err
		}
		keys = append(keys, key)
	}
	return keys, last, rows.Err()
}

// delete is one statement, at an isolation level at which MySQL locks what it
// deletes and no ranges.
func (p pruning) delete(ctx context.Context, keys []any) (n int64, err error) {
	statement := p.dialect.Rebind(p.drop + strings.Repeat("?,", len(keys)-1) + "?)")
	err = p.dialect.Retry(ctx, func() error {
		return p.dialect.ReadCommitted(ctx, p.db, func(tx *sql.Tx) error {
			res, err := tx.ExecContext(ctx, statement, keys...)
			if err != nil {
				return err
			}
			n, err = res.RowsAffected()
			return err
		})
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}
