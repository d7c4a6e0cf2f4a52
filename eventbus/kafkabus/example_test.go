package kafkabus_test

import (
	"context"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/kafkabus"
)

func ExampleOpen() {
	kafka, _ := kfake.NewCluster(kfake.NumBrokers(1)) // a Kafka in memory, for the example
	defer kafka.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	broker, err := kafkabus.Open(ctx, kafkabus.Config{Brokers: kafka.ListenAddrs(), Partitions: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer broker.Close()

	order := message.NewMessage("1", []byte("two boxes of tea"))
	order.Metadata.Set(driver.MetadataKey, "customer-7") // events of a key keep their order
	if err := broker.Publish("orders.placed", order); err != nil {
		fmt.Println(err)
		return
	}
	consumer, err := broker.Subscribe(ctx, driver.Subscription{
		Topic: "orders.placed", Group: "billing", Concurrency: 8,
		Handle: func(d *driver.Delivery) driver.Result {
			fmt.Printf("%s: %s\n", d.Key, d.Message.Payload)
			stop()
			return driver.Result{}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = consumer.Run(ctx)
	// Output: customer-7: two boxes of tea
}
