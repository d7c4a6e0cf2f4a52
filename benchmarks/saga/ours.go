package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/pgxsaga"
)

type line struct {
	SKU   string `json:"sku"`
	Count int    `json:"count"`
}

type order struct {
	Order    string `json:"order"`
	Amount   int    `json:"amount"`
	Lines    []line `json:"lines"`
	Address  string `json:"address"`
	Receipt  string `json:"receipt"`
	Shipment string `json:"shipment"`
}

func newOrder() order {
	return order{Order: "4711", Amount: 100, Lines: []line{{"A-100", 2}, {"B-200", 1}}, Address: "1 Long Lane, Cambridge"}
}

// fulfilment is the saga that is measured.
var fulfilment = saga.Definition[order]{
	Name: "fulfilment", Version: 1,
	Steps: []saga.Node[order]{
		step("reserve", nil),
		step("charge", func(o *order, receipt string) { o.Receipt = receipt }),
		step("ship", func(o *order, shipment string) { o.Shipment = shipment }),
	},
}

func step(name string, apply func(*order, string)) saga.Step[order] {
	nothing := func(context.Context, order) (string, error) { return "", nil }
	return saga.Step[order]{
		Name: name, Timeout: saga.NoTimeout,
		Do: saga.Call(nothing, apply), Compensate: saga.Call(nothing, nil),
	}
}

// ours is an orchestrator with what it stands on.
type ours struct {
	saga.Store
	orchestrator *saga.Orchestrator
	relay        func(to message.Publisher) relay
	close        func() error
}

// relay publishes what is in the outbox.
type relay interface {
	eventbus.Runner
	Active() bool
}

// migrates is what has tables.
type migrates interface {
	Migrate(ctx context.Context) error
}

var silent = slog.New(slog.DiscardHandler)

// onPgx uses tables whose names begin with prefix.
func onPgx(ctx context.Context, pool *pgxpool.Pool, prefix string) (*ours, error) {
	box := pgxoutbox.New(pool, outbox.Logger(silent), outbox.Table(prefix+"_outbox"))
	inbox := pgxinbox.New(pool, idempotency.Table(prefix+"_inbox"))
	store := pgxsaga.NewStore(pool, box, inbox, saga.Table(prefix+"_saga"))
	s := &ours{Store: store, close: sync.OnceValue(func() error { return errors.Join(store.Close(), inbox.Close(), box.Close()) })}
	s.relay = func(to message.Publisher) relay { return box.Relay(to) }
	return s, s.setUp(ctx, box, inbox, store)
}

func onSQL(ctx context.Context, db *sql.DB, d saga.Dialect) (*ours, error) {
	box, inbox := outbox.New(db, d, outbox.Logger(silent)), idempotency.NewInbox(db, d)
	store := saga.NewSQLStore(db, d, box, inbox)
	s := &ours{Store: store, close: func() error { return nil }}
	s.relay = func(to message.Publisher) relay { return box.Relay(to) }
	return s, s.setUp(ctx, box, inbox, store)
}

func (s *ours) setUp(ctx context.Context, parts ...migrates) error {
	for _, part := range parts {
		if err := part.Migrate(ctx); err != nil {
			return errors.Join(err, s.close())
		}
	}
	return s.orchestrate(saga.Config{})
}

func (s *ours) orchestrate(c saga.Config, more ...saga.Untyped) (err error) {
	c.Logger = silent
	s.orchestrator, err = saga.NewOrchestrator(s, c, append(more, fulfilment)...)
	return err
}

// execute runs one saga to its end.
func (s *ours) execute(ctx context.Context) error {
	i, err := saga.Execute(ctx, s.orchestrator, fulfilment, newID().String(), newOrder())
	if err == nil && i.Status != saga.Completed {
		err = fmt.Errorf("instance %s is %s", i.ID, i.Status)
	}
	return err
}
