package outbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	_ "modernc.org/sqlite"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/outbox"
)

// An event that is written within a transaction shares its fate.
func ExampleOutbox_In() {
	type OrderPlaced struct{ OrderID string }
	ordersPlaced := eventbus.NewTopic[OrderPlaced]("orders.placed",
		eventbus.KeyBy(func(e OrderPlaced) string { return e.OrderID }))

	ctx := context.Background()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // every connection to :memory: is a database of its own

	box := outbox.New(db, outbox.SQLite, outbox.Source("shop"))
	if err := box.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	for _, id := range []string{"o-1", "o-2"} {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			log.Fatal(err)
		}
		if err := ordersPlaced.Publish(ctx, box.In(tx), OrderPlaced{OrderID: id}); err != nil {
			log.Fatal(err)
		}
		if id == "o-2" {
			_ = tx.Rollback()
			continue
		}
		if err := tx.Commit(); err != nil {
			log.Fatal(err)
		}
		box.Poke() // Transact does this by itself
	}
	stats, err := box.Stats(ctx)
	fmt.Println(stats.Pending, "event waits to be published;", err)
	// Output: 1 event waits to be published; <nil>
}

// A relay is a runner: it starts and stops with a service.
func ExampleOutbox_Relay() {
	greetings := eventbus.NewTopic[string]("greetings")
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	bus, err := eventbus.Open(ctx, "memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer bus.Close()

	box := outbox.New(db, outbox.SQLite)
	if err := box.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	svc := eventbus.NewService("greeter", bus)
	svc.Add(box.Relay(bus))
	eventbus.Subscribe(svc, greetings, func(_ context.Context, e eventbus.Event[string]) error {
		fmt.Println("received:", e.Data)
		stop()
		return nil
	})
	err = box.Transact(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return greetings.Publish(ctx, box.In(tx), "hello")
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := svc.Run(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: received: hello
}

// Events that the broker refuses are set aside with the reason. They can be
// sent again when it is gone.
func ExampleOutbox_Unpark() {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	box := outbox.New(db, outbox.SQLite)
	if err := box.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	err = box.Transact(ctx, func(ctx context.Context, tx *sql.Tx) error {
		return box.In(tx).Publish("reports", message.NewMessage("r-1", []byte("a large report")))
	})
	if err != nil {
		log.Fatal(err)
	}

	var strict publisherFunc = func(string, ...*message.Message) error {
		stop() // one event is all there is
		return eventbus.Permanent(errors.New("larger than the broker allows"))
	}
	if err := box.Relay(strict).Run(ctx); err != nil {
		log.Fatal(err)
	}

	parked, err := box.Parked(context.Background(), 10)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range parked {
		fmt.Println(e.Topic, e.ID, e.Error)
	}
	n, err := box.Unpark(context.Background(), parked[0].ID)
	fmt.Println(n, "goes back into the log;", err)
	// Output:
	// reports r-1 larger than the broker allows
	// 1 goes back into the log; <nil>
}

// publisherFunc is a function as a Watermill publisher.
type publisherFunc func(topic string, messages ...*message.Message) error

func (f publisherFunc) Publish(topic string, messages ...*message.Message) error {
	return f(topic, messages...)
}

func (publisherFunc) Close() error { return nil }
