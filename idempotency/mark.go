package idempotency

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency/internal/marks"
)

// Mark says what has been handled by whom. Its strings may hold any bytes and
// have any length; two marks are the same only if all their bytes are.
type Mark struct {
	// Consumer is who handles it: a consumer group. Required.
	Consumer string
	// Source is within what ID is unique: the publishing service. May be empty,
	// as it is for events of foreign producers.
	Source string
	// ID of the event. Required.
	ID string
}

func (m Mark) String() string { return marks.Key(m).String() }

// Mark writes m in a transaction of the caller, and reports whether it is new.
// It is for those who can't have the inbox run the transaction; call it before
// anything else is done in tx. If fresh is false, roll back and acknowledge the
// event: it has been handled. If tx is rolled back, so is the mark.
//
// While another transaction that writes m is open, Mark waits for its end. In a
// transaction that is repeatable read or serializable, PostgreSQL may answer
// that with a serialization failure, after which tx must be rolled back and
// tried again; so must one that MySQL has chosen as the victim of a deadlock.
//
// Errors of the database are wrapped and may be retried with a new transaction;
// those about m are permanent.
func (i *Inbox) Mark(ctx context.Context, tx *sql.Tx, m Mark) (fresh bool, err error) {
	key, digest, err := i.prepare(m)
	if err != nil {
		return false, err
	}
	if i.state.Known(digest) {
		return false, nil
	}
	fresh, err = i.insert(ctx, tx, key)
	if err != nil {
		return false, fmt.Errorf("idempotency: mark %s: %w", m, i.state.Explain(err))
	}
	return fresh, nil
}

// Seen reports whether m has been marked, as tx sees it. It is a look, not a
// lock: of two deliveries at once both may see nothing. Mark decides.
func (i *Inbox) Seen(ctx context.Context, tx *sql.Tx, m Mark) (bool, error) {
	key, digest, err := i.prepare(m)
	if err != nil {
		return false, err
	}
	if i.state.Remembers(digest) {
		return true, nil
	}
	return i.look(ctx, tx, key, m)
}

// prepare checks m and returns it as it is stored.
func (i *Inbox) prepare(m Mark) (marks.Key, marks.Digest, error) {
	if i.err != nil {
		return marks.Key{}, marks.Digest{}, i.err
	}
	key := marks.Key(m)
	if err := key.Check(); err != nil {
		return marks.Key{}, marks.Digest{}, eventbus.Permanent(fmt.Errorf("idempotency: %s: %w", m, err))
	}
	return key.Stored(), key.Digest(), nil
}

// insert reports whether the mark is new.
func (i *Inbox) insert(ctx context.Context, tx *sql.Tx, key marks.Key) (fresh bool, err error) {
	res, err := tx.ExecContext(ctx, i.state.Mark, key.Consumer, key.Source, key.ID, time.Now().UnixMilli())
	switch {
	case i.state.IsDuplicate(err):
		return false, nil
	case err != nil:
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// look reports whether there is a mark; m names it in errors.
func (i *Inbox) look(ctx context.Context, q querier, key marks.Key, m Mark) (bool, error) {
	var one int
	err := q.QueryRowContext(ctx, i.state.Seen, key.Consumer, key.Source, key.ID).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("idempotency: look for %s: %w", m, i.state.Explain(err))
	}
	return true, nil
}
