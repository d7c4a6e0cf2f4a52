package pgxsaga_test

import (
	"context"
	"errors"
	"log"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/pgxsaga"
)

func Example() {
	type signup struct{ Email string }
	welcome := saga.Definition[signup]{
		Name: "welcome", Version: 1,
		Steps: []saga.Node[signup]{saga.Step[signup]{
			Name:       "confirm",
			Success:    saga.Signal[signup, struct{}]("confirmed", nil),
			Timeout:    72 * time.Hour,
			Compensate: saga.NotNeeded[signup]("nothing was done"),
		}},
	}

	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	box, inbox := pgxoutbox.New(pool), pgxinbox.New(pool)
	store := pgxsaga.NewStore(pool, box, inbox)
	if err := errors.Join(box.Migrate(ctx), inbox.Migrate(ctx), store.Migrate(ctx)); err != nil {
		log.Fatal(err)
	}
	orchestrator, err := saga.NewOrchestrator(store, saga.Config{}, welcome)
	if err != nil {
		log.Fatal(err)
	}
	bus, err := eventbus.Open(ctx, os.Getenv("EVENTBUS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer bus.Close()
	svc := eventbus.NewService("accounts", bus)
	orchestrator.Attach(svc)
	svc.Add(box.Relay(bus), inbox, store) // publishes; prunes marks and ended instances
	if err := svc.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
