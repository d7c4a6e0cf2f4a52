package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	_ "modernc.org/sqlite"

	"github.com/millrace-go/millrace/outbox"
)

// A Watermill program that keeps its router, its publisher and its subscriber,
// and gets an outbox: the handler's writes and what it publishes commit together.
func Example_watermill() {
	slog.SetLogLoggerLevel(slog.LevelError)
	dir, err := os.MkdirTemp("", "outbox")
	check(err)
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "shop.db")+
		"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	check(err)
	defer db.Close()
	_, err = db.Exec("CREATE TABLE orders (id TEXT PRIMARY KEY)")
	check(err)

	pubSub := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 10}, watermill.NopLogger{})
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	check(err)

	box := outbox.New(db, outbox.SQLite)
	check(box.Migrate(context.Background()))

	router.AddConsumerHandler("place orders", "place-order", pubSub, func(msg *message.Message) error {
		return box.Transact(msg.Context(), func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES (?)", string(msg.Payload)); err != nil {
				return err
			}
			placed := message.NewMessage(watermill.NewUUID(), msg.Payload)
			placed.SetContext(ctx)
			return box.In(tx).Publish("order-placed", placed)
		})
	})
	done := make(chan struct{})
	router.AddConsumerHandler("print placed orders", "order-placed", pubSub, func(msg *message.Message) error {
		fmt.Printf("order %s was placed\n", msg.Payload)
		close(done)
		return nil
	})

	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- router.Run(ctx) }()
	go func() { ended <- box.Relay(pubSub).Run(ctx) }()
	<-router.Running()
	check(pubSub.Publish("place-order", message.NewMessage(watermill.NewUUID(), []byte("42"))))
	<-done
	stop()
	check(<-ended)
	check(<-ended)
	check(pubSub.Close())
	// Output: order 42 was placed
}
