package idempotency_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"

	_ "modernc.org/sqlite"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
)

// A handler that is called twice for one event takes effect once.
func ExampleOnce() {
	type Deposit struct{ Amount int }
	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // every connection to :memory: is a database of its own
	if _, err := db.Exec("CREATE TABLE account (balance INTEGER); INSERT INTO account VALUES (100)"); err != nil {
		log.Fatal(err)
	}

	inbox := idempotency.NewInbox(db, idempotency.SQLite)
	if err := inbox.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	deposit := idempotency.Once(inbox, func(ctx context.Context, tx *sql.Tx, e eventbus.Event[Deposit]) error {
		_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance + ?", e.Data.Amount)
		return err
	})
	// eventbus.Subscribe(svc, deposits, deposit) would call it like this:
	e := eventbus.Event[Deposit]{
		Attributes: eventbus.Attributes{ID: "d-1", Source: "bank"},
		Delivery:   eventbus.Delivery{Group: "accounts"},
		Data:       Deposit{Amount: 42},
	}
	fmt.Println(deposit(ctx, e), deposit(ctx, e))
	var balance int
	err = db.QueryRow("SELECT balance FROM account").Scan(&balance)
	fmt.Println(balance, err)
	// Output:
	// <nil> <nil>
	// 142 <nil>
}

// Whatever has an id can be handled once, not only events.
func ExampleInbox_Transact() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	inbox := idempotency.NewInbox(db, idempotency.SQLite)
	if err := inbox.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	mark := idempotency.Mark{Consumer: "price-import", ID: "prices-2026-01.csv"}
	for range 2 {
		duplicate, err := inbox.Transact(ctx, mark, func(context.Context, *sql.Tx) error {
			fmt.Println("importing")
			return nil
		})
		fmt.Println(duplicate, err)
	}
	// Output:
	// importing
	// false <nil>
	// true <nil>
}

// Several events share a transaction; one that fails is undone alone.
func ExampleInbox_Batch() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	inbox := idempotency.NewInbox(db, idempotency.SQLite)
	if err := inbox.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	files := []string{"a.csv", "b.csv", "a.csv", "c.csv"}
	marks := make([]idempotency.Mark, len(files))
	for n, file := range files {
		marks[n] = idempotency.Mark{Consumer: "price-import", ID: file}
	}
	duplicate, err := inbox.Batch(ctx, marks, func(_ context.Context, _ *sql.Tx, n int) error {
		if files[n] == "b.csv" {
			return errors.New("line 3 has no price")
		}
		return nil
	})
	var failed *idempotency.BatchError
	if errors.As(err, &failed) {
		for n, file := range files {
			fmt.Println(file, duplicate[n], failed.Errs[n])
		}
	}
	// Output:
	// a.csv false <nil>
	// b.csv false line 3 has no price
	// a.csv true <nil>
	// c.csv false <nil>
}

// Those who run the transaction themselves mark in it.
func ExampleInbox_Mark() {
	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	inbox := idempotency.NewInbox(db, idempotency.SQLite)
	if err := inbox.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	handle := func(id string) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		fresh, err := inbox.Mark(ctx, tx, idempotency.Mark{Consumer: "billing", ID: id})
		if err != nil || !fresh {
			return err
		}
		fmt.Println("handling", id)
		return tx.Commit()
	}
	fmt.Println(handle("e-1"), handle("e-1"))
	// Output:
	// handling e-1
	// <nil> <nil>
}
