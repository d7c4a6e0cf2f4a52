package idempotency_test

import (
	"context"
	"database/sql"
	"fmt"
	"log"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	_ "modernc.org/sqlite"

	"github.com/millrace-go/millrace/idempotency"
)

// A program that is built on Watermill's router, with a publisher and a
// subscriber of its own, needs nothing else of Millrace.
func ExampleInbox_Transact_watermill() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE account (balance INTEGER); INSERT INTO account VALUES (100)"); err != nil {
		log.Fatal(err)
	}
	inbox := idempotency.NewInbox(db, idempotency.SQLite)
	if err := inbox.Migrate(ctx); err != nil {
		log.Fatal(err)
	}

	pubsub := gochannel.NewGoChannel(gochannel.Config{Persistent: true, BlockPublishUntilSubscriberAck: true}, watermill.NopLogger{})
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	router.AddConsumerHandler("deposits", "deposits", pubsub, func(msg *message.Message) error {
		mark := idempotency.Mark{Consumer: "accounts", ID: msg.UUID}
		_, err := inbox.Transact(msg.Context(), mark, func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE account SET balance = balance + ?", string(msg.Payload))
			return err
		})
		return err
	})
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()
	<-router.Running()

	for _, id := range []string{"d-1", "d-1", "d-2", "d-1"} {
		if err := pubsub.Publish("deposits", message.NewMessage(id, []byte("10"))); err != nil {
			log.Fatal(err)
		}
	}
	if err := router.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-done)
	var balance int
	err = db.QueryRow("SELECT balance FROM account").Scan(&balance)
	fmt.Println(balance, err)
	// Output:
	// <nil>
	// 120 <nil>
}
