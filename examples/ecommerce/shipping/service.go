// Package shipping is the service that carries parcels to customers.
package shipping

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
const Name = "shipping"

// Service is the shipping service.
type Service struct {
	*eventbus.Service
	db   *sql.DB
	box  *outbox.Outbox
	seed uint64
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

	svc := eventbus.NewService(Name, env.Bus, eventbus.Defaults(eventbus.Retry(platform.Retry)))
	s := &Service{Service: svc, db: db, box: box, seed: env.Seed}
	svc.Use(env.Faults.Slow)
	svc.Add(box.Relay(env.Bus, outbox.Lease(platform.Lease)), inbox)
	eventbus.Subscribe(svc, events.GoodsDispatched, idempotency.Once(inbox, faults.Around(env.Faults, s.ship)))
	eventbus.Subscribe(svc, events.ParcelsDue, idempotency.Once(inbox, faults.Around(env.Faults, s.deliver)))
	return s, nil
}

// Close closes the database, after Run has returned.
func (s *Service) Close() error { return s.db.Close() }
