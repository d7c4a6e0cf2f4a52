package pgxsaga

import (
	"database/sql"
	"slices"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/internal/tables"
)

// Store is a saga.SQLStore that commits by pgx. It is safe for concurrent use.
type Store struct {
	*saga.SQLStore
	db *sql.DB // on top of the pool

	loads   *loader
	commits *committer
}

var _ saga.Store = (*Store)(nil)

// NewStore returns the store in the database of pool, which is also that of box
// and inbox. It does not touch the database: its tables are made by Migrate or
// from Schema, those of the others by theirs. Whatever is wrong with the
// arguments is returned by every use.
func NewStore(pool *pgxpool.Pool, box *pgxoutbox.Outbox, inbox *pgxinbox.Inbox, opts ...saga.StoreOption) *Store {
	s := &Store{loads: newLoader(pool), commits: newCommitter(pool, box, inbox)}
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
	opts = append(slices.Clip(opts), func(c *tables.Config) { c.Commit, c.Load = s.commits.commit, s.loads.load })
	s.SQLStore = saga.NewSQLStore(s.db, saga.Postgres, innerBox, innerInbox, opts...)
	return s
}

// Close releases what the store holds beside the pool, which stays open: a
// goroutine, and those of transitions that nobody waits for any more. It may be
// called several times, when Run has returned.
func (s *Store) Close() error {
	s.loads.wait()
	s.commits.wait()
	if s.db == nil {
		return nil
	}
	return s.db.Close()
}
