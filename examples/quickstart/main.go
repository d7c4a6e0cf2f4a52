// Command quickstart publishes a few user.created events and logs them.
//
//	go run ./examples/quickstart
//	EVENTBUS_URL=sqlite:quickstart.db go run ./examples/quickstart
//	EVENTBUS_URL=kafka://localhost:9092 go run ./examples/quickstart
//	EVENTBUS_URL=amqp://guest:guest@localhost:5672/ go run ./examples/quickstart
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"sync/atomic"

	"github.com/millrace-go/millrace/eventbus"
	_ "github.com/millrace-go/millrace/eventbus/amqpbus"  // amqp: URLs
	_ "github.com/millrace-go/millrace/eventbus/kafkabus" // kafka: URLs
	_ "github.com/millrace-go/millrace/eventbus/sqlbus"   // sqlite:, postgres: and mysql: URLs
)

// UserCreated says that somebody signed up.
type UserCreated struct{ UserID, Name string }

// UsersCreated has the events of one user in order.
var UsersCreated = eventbus.NewTopic[UserCreated]("user.created",
	eventbus.KeyBy(func(e UserCreated) string { return e.UserID }))

var users = []UserCreated{{"u-1", "Ada"}, {"u-2", "Grace"}, {"u-3", "Edsger"}}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Getenv("EVENTBUS_URL")); err != nil {
		log.Fatal(err)
	}
}

// run publishes the users and returns when all were handled, or ctx ends.
func run(ctx context.Context, url string) error {
	bus, err := eventbus.Open(ctx, url) // "" is "memory:"
	if err != nil {
		return err
	}
	defer bus.Close()

	if err := UsersCreated.PublishAll(ctx, bus, users); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var handled atomic.Int64
	svc := eventbus.NewService("greeter", bus)
	eventbus.Subscribe(svc, UsersCreated, func(ctx context.Context, e eventbus.Event[UserCreated]) error {
		log.Printf("welcome, %s (event %s)", e.Data.Name, e.ID)
		if handled.Add(1) == int64(len(users)) {
			stop() // a real service runs until it is told to stop
		}
		return nil
	})
	return svc.Run(ctx)
}
