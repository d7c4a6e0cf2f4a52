package pgxsaga

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-go/millrace/saga/internal/tables"
)

// loader reads instances, those that are asked for while another one is read in
// groups.
type loader struct {
	gather[*lookup]
	pool *pgxpool.Pool
}

type lookup struct {
	tables.Lookup
	found bool
}

func newLoader(pool *pgxpool.Pool) *loader {
	l := &loader{pool: pool}
	l.together, l.limits = l.loadGroup, usual
	return l
}

func (l *loader) load(ctx context.Context, t tables.Lookup) (found bool, err error) {
	up := &lookup{Lookup: t}
	err = l.do(ctx, up, func() error { return l.loadOne(ctx, up) })
	if err != nil {
		return false, err
	}
	return up.found, nil
}

func (l *loader) loadOne(ctx context.Context, up *lookup) error {
	err := l.pool.QueryRow(ctx, up.Statement, up.Saga, up.ID).Scan(up.Row.Columns()...)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	up.found = err == nil
	return err
}

// loadGroup reads instances by one statement. If it fails each is read alone.
func (l *loader) loadGroup(ctx context.Context, group []*member[*lookup]) {
	err := l.readGroup(ctx, group)
	for _, m := range group {
		if err != nil {
			m.leave()
		} else {
			m.answer(nil)
		}
	}
}

func (l *loader) readGroup(ctx context.Context, group []*member[*lookup]) error {
	sagas, ids := make([]string, len(group)), make([][]byte, len(group))
	for n, m := range group {
		sagas[n], ids[n] = m.item.Saga, m.item.ID
	}
	rows, err := l.pool.Query(ctx, group[0].item.Together, sagas, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	var n int64
	var row tables.Row
	into := append([]any{&n}, row.Columns()...)
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		up := group[n-1].item
		*up.Row, up.found = row, true
	}
	return rows.Err()
}
