package pgxsaga

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/internal/aftercommit"
	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/internal/tables"
)

// committer executes transitions, those that come while many are under way in
// groups.
type committer struct {
	gather[tables.Transition]
	pool  *pgxpool.Pool
	box   *pgxoutbox.Outbox
	inbox *pgxinbox.Inbox
}

func newCommitter(pool *pgxpool.Pool, box *pgxoutbox.Outbox, inbox *pgxinbox.Inbox) *committer {
	c := &committer{pool: pool, box: box, inbox: inbox}
	c.together, c.limits = c.commitGroup, usual
	return c
}

func (c *committer) commit(ctx context.Context, t tables.Transition) error {
	return c.do(ctx, t, func() error { return c.commitOne(ctx, t) })
}

func (c *committer) commitOne(ctx context.Context, t tables.Transition) error {
	return dialect.Postgres.Retry(ctx, func() error {
		ctx, hooks := aftercommit.With(ctx)
		b := &pgx.Batch{}
		b.Queue(t.Statement, t.Args...)
		if err := t.Publish(ctx, c.box.InBatch(b)); err != nil {
			return err
		}
		if err := c.send(ctx, t, b); err != nil {
			return err
		}
		hooks.Run() // wakes the relay
		return nil
	})
}

// send executes b in one transaction with the mark of the event, if there is one.
func (c *committer) send(ctx context.Context, t tables.Transition, b *pgx.Batch) (err error) {
	var duplicate bool
	if t.EventID == "" {
		err = c.pool.SendBatch(ctx, b).Close()
	} else {
		duplicate, err = c.inbox.Send(ctx, idempotency.Mark{Consumer: t.Consumer, Source: t.Source, ID: t.EventID}, b)
	}
	switch {
	case duplicate:
		return saga.ErrDuplicate
	case isConflict(err):
		return saga.ErrConflict
	}
	return err
}

// isConflict recognises the error by which a transition's statement fails if the
// instance has another revision.
func isConflict(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && e.Code == "22012"
}
