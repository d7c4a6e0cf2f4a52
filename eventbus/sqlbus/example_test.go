package sqlbus_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

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
