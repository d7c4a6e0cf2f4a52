package pgxinbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/internal/marks"
)

// Mark is idempotency.Inbox.Mark with a pgx.Tx.
func (i *Inbox) Mark(ctx context.Context, tx pgx.Tx, m idempotency.Mark) (fresh bool, err error) {
	key, digest, err := i.prepare(ctx, m)
	if err != nil {
		return false, err
	}
	if i.state.Known(digest) {
		return false, nil
	}
	tag, err := tx.Exec(ctx, i.state.Mark, key.Consumer, key.Source, key.ID, time.Now().UnixMilli())
	if err != nil {
		return false, fmt.Errorf("pgxinbox: mark %s: %w", m, i.state.Explain(err))
	}
	return tag.RowsAffected() > 0, nil
}

// Seen is idempotency.Inbox.Seen with a pgx.Tx.
func (i *Inbox) Seen(ctx context.Context, tx pgx.Tx, m idempotency.Mark) (bool, error) {
	key, digest, err := i.prepare(ctx, m)
	if err != nil {
		return false, err
	}
	if i.state.Remembers(digest) {
		return true, nil
	}
	return i.look(ctx, tx, key, m)
}

// prepare checks m and returns it as it is stored.
func (i *Inbox) prepare(ctx context.Context, m idempotency.Mark) (marks.Key, marks.Digest, error) {
	if err := i.fault(ctx); err != nil {
		return marks.Key{}, marks.Digest{}, err
	}
	key := marks.Key(m)
	if err := key.Check(); err != nil {
		return marks.Key{}, marks.Digest{}, eventbus.Permanent(fmt.Errorf("pgxinbox: %s: %w", m, err))
	}
	return key.Stored(), key.Digest(), nil
}

// querier is a pool or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// look reports whether there is a mark; m names it in errors.
func (i *Inbox) look(ctx context.Context, q querier, key marks.Key, m idempotency.Mark) (bool, error) {
	var one int
	err := q.QueryRow(ctx, i.state.Seen, key.Consumer, key.Source, key.ID).Scan(&one)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("pgxinbox: look for %s: %w", m, i.state.Explain(err))
	}
	return true, nil
}
