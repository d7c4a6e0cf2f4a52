package pgxoutbox_test

import (
	"context"
	"database/sql"
	"log"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/outbox/pgxoutbox"
)

type orderPlaced struct{ OrderID string }

var ordersPlaced = eventbus.NewTopic[orderPlaced]("orders.placed")

func Example() {
	ctx := context.Background()
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	box := pgxoutbox.New(pool)
	defer box.Close()
	if err := box.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	err = box.Transact(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO orders (id) VALUES ($1)", "o-1"); err != nil {
			return err
		}
		return ordersPlaced.Publish(ctx, box.In(tx), orderPlaced{"o-1"})
	})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleConnector() {
	ctx := context.Background()
	config, err := pgx.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	db := sql.OpenDB(pgxoutbox.Connector(stdlib.GetConnector(*config)))
	defer db.Close()
	box := outbox.New(db, outbox.Postgres)
	if err := box.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	err = box.Transact(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES ($1)", "o-1"); err != nil {
			return err
		}
		return ordersPlaced.Publish(ctx, box.In(tx), orderPlaced{"o-1"}) // sent with the COMMIT
	})
	if err != nil {
		log.Fatal(err)
	}
}
