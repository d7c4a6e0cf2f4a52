// Package warehouse is the service that keeps the stock and dispatches goods, all
// of an order or none.
package warehouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/outbox"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/faults"
	"github.com/millrace-go/millrace/examples/ecommerce/platform"
	"github.com/millrace-go/millrace/examples/ecommerce/sqlitedb"
)

// Name of the service, its consumer group and its database.
const Name = "warehouse"

// Service is the warehouse.
type Service struct {
	*eventbus.Service
	db  *sql.DB
	box *outbox.Outbox
}

// New opens the service's database. The caller runs the service, then closes it.
func New(ctx context.Context, env platform.Env) (*Service, error) {
	db, err := sqlitedb.Open(ctx, platform.Database(env.Dir, Name), schema)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	box := outbox.New(db, outbox.SQLite, outbox.Source(Name))
	inbox := idempotency.NewInbox(db, idempotency.SQLite)
	if err := errors.Join(box.Migrate(ctx), inbox.Migrate(ctx)); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", Name, err), db.Close())
	}

	s := &Service{db: db, box: box}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", Name, err), db.Close())
	}

	svc := eventbus.NewService(Name, env.Bus, eventbus.Defaults(eventbus.Retry(platform.Retry)))
	s.Service = svc
	svc.Use(env.Faults.Slow)
	svc.Add(box.Relay(env.Bus, outbox.Lease(platform.Lease)), inbox)
	eventbus.Subscribe(svc, events.OrdersCreated, idempotency.Once(inbox, faults.Around(env.Faults, s.dispatch)))
	return s, nil
}

// open fills a new warehouse and announces what there is.
func (s *Service) open(ctx context.Context) error {
	return s.box.Transact(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if err := fill(ctx, tx); err != nil {
			return err
		}
		return s.announce(ctx, tx)
	})
}

// Close closes the database, after Run has returned.
func (s *Service) Close() error { return s.db.Close() }
