package pgxinbox_test

import (
	"context"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency/pgxinbox"
)

func Example() {
	type Deposit struct{ Amount int }
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	inbox := pgxinbox.New(pool)
	defer inbox.Close()
	if err := inbox.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	deposit := pgxinbox.Once(inbox, func(ctx context.Context, tx pgx.Tx, e eventbus.Event[Deposit]) error {
		_, err := tx.Exec(ctx, "UPDATE account SET balance = balance + $1", e.Data.Amount)
		return err
	})
	bus, err := eventbus.Open(ctx, os.Getenv("EVENTBUS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer bus.Close()
	svc := eventbus.NewService("accounts", bus)
	svc.Add(inbox) // prunes old marks
	eventbus.Subscribe(svc, eventbus.NewTopic[Deposit]("deposits"), deposit)
	if err := svc.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
