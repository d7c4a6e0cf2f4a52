package amqpbus_test

import (
	"context"
	"fmt"
	"os"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/amqpbus"
	"github.com/millrace-go/millrace/eventbus/driver"
)

func Example() {
	ctx := context.Background()
	bus, err := eventbus.Open(ctx, os.Getenv("EVENTBUS_URL")) // amqp://shop:secret@rabbit:5672/
	if err != nil {
		fmt.Println(err)
		return
	}
	defer bus.Close()
	err = bus.Publish("orders.placed", message.NewMessage("1", []byte("two boxes of tea")))
	fmt.Println(err)
}

func ExampleOpen() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	broker, err := amqpbus.Open(ctx, amqpbus.Config{
		Hosts:    []string{os.Getenv("RABBITMQ_HOST")},
		Username: "shop", Password: os.Getenv("RABBITMQ_PASSWORD"),
		Queues: 8,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	bus, _ := eventbus.New(broker)
	defer bus.Close()

	consumer, _ := broker.Subscribe(ctx, driver.Subscription{
		Topic: "orders.placed", Group: "billing", Concurrency: 1,
		Handle: func(d *driver.Delivery) driver.Result {
			fmt.Printf("%s\n", d.Message.Payload)
			stop()
			return driver.Result{}
		},
	})
	_ = bus.Publish("orders.placed", message.NewMessage("1", []byte("two boxes of tea")))
	_ = consumer.Run(ctx)
}
