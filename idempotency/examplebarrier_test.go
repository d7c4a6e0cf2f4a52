package idempotency_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	_ "modernc.org/sqlite"

	"github.com/millrace-go/millrace/idempotency"
)

// A participant whose compensation overtakes its action.
func ExampleBarrier() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // every connection to :memory: is a database of its own
	barrier := idempotency.NewBarrier(db, idempotency.SQLite, idempotency.BarrierConfig{})
	if err := barrier.Migrate(ctx); err != nil {
		log.Fatal(err)
	}

	key := idempotency.BarrierKey{Saga: "order-7", Step: "reserve stock"}
	handle := func(command func(context.Context, *sql.Tx, idempotency.BarrierKey) (idempotency.Verdict, error)) idempotency.Verdict {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer tx.Rollback()
		verdict, err := command(ctx, tx, key)
		if err != nil {
			log.Fatal(err)
		}
		if verdict.Run() {
			fmt.Println("writing to the stock") // on tx
		}
		if err := tx.Commit(); err != nil {
			log.Fatal(err)
		}
		return verdict
	}
	fmt.Println(handle(barrier.Compensate))
	fmt.Println(handle(barrier.Forward))
	// Output:
	// null compensation
	// hanging
}
