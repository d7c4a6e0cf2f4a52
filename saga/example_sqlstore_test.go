package saga_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/saga"
)

func ExampleNewSQLStore() {
	type refund struct {
		Amount  int
		Receipt string
	}
	refunds := saga.Definition[refund]{
		Name: "refunds", Version: 1,
		Steps: []saga.Node[refund]{saga.Step[refund]{
			Name: "pay back",
			Do: saga.Call(func(_ context.Context, r refund) (string, error) { return fmt.Sprint("receipt of ", r.Amount), nil },
				func(r *refund, receipt string) { r.Receipt = receipt }),
			Timeout:    time.Minute,
			Compensate: saga.NotNeeded[refund]("the only step"),
		}},
	}

	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "shop.db")+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	box, inbox := outbox.New(db, outbox.SQLite), idempotency.NewInbox(db, idempotency.SQLite)
	store := saga.NewSQLStore(db, saga.SQLite, box, inbox, saga.Retention(365*24*time.Hour))
	if err := errors.Join(box.Migrate(ctx), inbox.Migrate(ctx), store.Migrate(ctx)); err != nil {
		log.Fatal(err)
	}
	orchestrator, err := saga.NewOrchestrator(store, saga.Config{}, refunds)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := saga.Execute(ctx, orchestrator, refunds, "order-1", refund{Amount: 7}); err != nil {
		log.Fatal(err)
	}
	i, err := store.Load(ctx, "refunds", "order-1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(i.Status, string(i.State))
	// Output: completed {"Amount":7,"Receipt":"receipt of 7"}
}
