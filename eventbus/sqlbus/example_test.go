package sqlbus_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/sqlbus"
)

func ExampleOpen() {
	dir, _ := os.MkdirTemp("", "bus")
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	broker, err := sqlbus.Open(ctx, filepath.Join(dir, "bus.db"), sqlbus.Config{MaxPayload: 4096})
	if err != nil {
		fmt.Println(err)
		return
	}
	bus, _ := eventbus.New(broker)
	defer bus.Close()

	_ = bus.Publish("orders.placed", message.NewMessage("1", []byte("two boxes of tea")))
	consumer, _ := broker.Subscribe(ctx, driver.Subscription{
		Topic: "orders.placed", Group: "billing", Concurrency: 1,
		Handle: func(d *driver.Delivery) driver.Result {
			fmt.Printf("%s\n", d.Message.Payload)
			stop()
			return driver.Result{}
		},
	})
	_ = consumer.Run(ctx)
	// Output: two boxes of tea
}

// The tables may live beside those of the service.
func ExampleOpenPostgres() {
	broker, err := sqlbus.OpenPostgres(context.Background(), os.Getenv("DATABASE_URL"), sqlbus.Config{Retention: 24 * time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	bus, _ := eventbus.New(broker)
	defer bus.Close()
	_ = bus.Publish("orders.placed", message.NewMessage("1", []byte("two boxes of tea")))
}

func ExampleOpenMySQL() {
	broker, err := sqlbus.OpenMySQL(context.Background(), "mysql://shop@127.0.0.1:3306/shop?tls=preferred", sqlbus.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	bus, _ := eventbus.New(broker)
	defer bus.Close()
	_ = bus.Publish("orders.placed", message.NewMessage("1", []byte("two boxes of tea")))
}

// For a migration tool.
func ExampleSchema() {
	statements := sqlbus.Schema(sqlbus.Postgres)
	fmt.Println(statements[:strings.IndexByte(statements, '\n')])
	// Output: CREATE TABLE millrace_meta (
}
