package pgxsaga

import (
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/internal/aftercommit"
	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/internal/tables"
)

// Store is a saga.SQLStore that commits by pgx. It is safe for concurrent use.
type Store struct {
	*saga.SQLStore
	db *sql.DB // on top of the pool
}

var _ saga.Store = (*Store)(nil)

// NewStore returns the store in the database of pool, which is also that of box
// and inbox. It does not touch the database: its tables are made by Migrate or
// from Schema, those of the others by theirs. Whatever is wrong with the
// arguments is returned by every use.
func NewStore(pool *pgxpool.Pool, box *pgxoutbox.Outbox, inbox *pgxinbox.Inbox, opts ...saga.StoreOption) *Store {
	s, c := &Store{}, &committer{pool, box, inbox}
	if pool != nil {
		s.db = stdlib.OpenDBFromPool(pool)
	}
	var innerBox *outbox.Outbox
	if box != nil {
		innerBox = box.Outbox
	}
	var innerInbox *idempotency.Inbox
	if inbox != nil {
		innerInbox = inbox.Inbox
	}
	opts = append(slices.Clip(opts), func(config *tables.Config) { config.Commit = c.commit })
	s.SQLStore = saga.NewSQLStore(s.db, saga.Postgres, innerBox, innerInbox, opts...)
	return s
}

// Close releases what the store holds beside the pool, which stays open: a
// goroutine. It may be called several times, when Run has returned.
func (s *Store) Close() error {
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}

// committer executes transitions.
type committer struct {
	pool  *pgxpool.Pool
	box   *pgxoutbox.Outbox
	inbox *pgxinbox.Inbox
}

func (c *committer) commit(ctx context.Context, t tables.Transition) error {
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
