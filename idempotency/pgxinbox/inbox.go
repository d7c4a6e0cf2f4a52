package pgxinbox

import (
	"context"
	"database/sql"
	"errors"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/internal/marks"
)

// Inbox is an idempotency.Inbox whose transactions are pgx's. Migrate, Schema,
// Prune, Run and Stats are those of the embedded Inbox; Transact, Mark, Seen and
// Batch take a pgx.Tx. It is safe for concurrent use.
type Inbox struct {
	*idempotency.Inbox

	pool  *pgxpool.Pool
	state *marks.State // nil if New was given bad arguments
	db    *sql.DB
}

// New returns the inbox in the database of pool. It does not touch the database;
// whatever is wrong with the arguments is returned by every use. The pool may
// use any QueryExecMode and be behind a pooler of connections.
func New(pool *pgxpool.Pool, opts ...idempotency.Option) *Inbox {
	i := &Inbox{pool: pool}
	if pool != nil {
		i.db = stdlib.OpenDBFromPool(pool)
	}
	expose := func(c *marks.Config) { c.Expose = func(s *marks.State) { i.state = s } }
	i.Inbox = idempotency.NewInbox(i.db, idempotency.Postgres, append(opts[:len(opts):len(opts)], expose)...)
	return i
}

// Close ends what database/sql keeps for Migrate and Prune. It does not close
// the pool. It may be called several times, when Run has returned.
func (i *Inbox) Close() error {
	if i.db == nil {
		return nil
	}
	return i.db.Close()
}

// fault returns what was wrong with the arguments of New.
func (i *Inbox) fault(ctx context.Context) error {
	if i.state != nil {
		return nil
	}
	if i.Inbox == nil {
		return errors.New("pgxinbox: the inbox was not made by New")
	}
	return i.Migrate(ctx) // touches nothing but says what is wrong
}
