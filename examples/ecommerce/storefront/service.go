// Package storefront is the service that customers see: it takes orders, and
// shows products, orders and e-mails as the other services' events tell it.
package storefront

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
const Name = "storefront"

// Service is the storefront.
type Service struct {
	*eventbus.Service
	db   *sql.DB
	box  *outbox.Outbox
	live *live
}

// New opens the service's database. The caller runs the service and serves its
// Handler, then closes it.
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
	s := &Service{Service: svc, db: db, box: box, live: newLive()}
	svc.Use(env.Faults.Slow)
	svc.Add(box.Relay(env.Bus, outbox.Lease(platform.Lease)), inbox)
	eventbus.Subscribe(svc, events.OrdersStatus, s.showOrder(idempotency.Once(inbox, faults.Around(env.Faults, s.statusChanged))))
	eventbus.Subscribe(svc, events.StockChanged, s.showStock(idempotency.Once(inbox, faults.Around(env.Faults, s.stockChanged))))
	eventbus.Subscribe(svc, events.EmailsSent, idempotency.Once(inbox, faults.Around(env.Faults, s.emailSent)))
	return s, nil
}

// EndStreams ends all server-sent event streams, which would otherwise keep an
// HTTP server from shutting down.
func (s *Service) EndStreams() { s.live.end() }

// Close closes the database, after Run has returned.
func (s *Service) Close() error { return s.db.Close() }
