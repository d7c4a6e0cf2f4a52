package eventbus_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/resilience"
)

type UserCreated struct{ Name string }

var UsersCreated = eventbus.NewTopic[UserCreated]("users.created",
	eventbus.KeyBy(func(u UserCreated) string { return u.Name }))

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	bus, err := eventbus.Open(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer bus.Close()

	svc := eventbus.NewService("greeter", bus)
	eventbus.Subscribe(svc, UsersCreated, func(ctx context.Context, e eventbus.Event[UserCreated]) error {
		fmt.Println("hello,", e.Data.Name)
		stop()
		return nil
	})
	if err := UsersCreated.Publish(ctx, bus, UserCreated{Name: "Ada"}); err != nil {
		panic(err)
	}
	fmt.Println(svc.Run(ctx)) // until ctx ends
	// Output:
	// hello, Ada
	// <nil>
}

func ExampleTopic_PublishAll() {
	bus, err := eventbus.Open(context.Background(), "memory:")
	if err != nil {
		panic(err)
	}
	defer bus.Close()
	err = UsersCreated.PublishAll(context.Background(), bus, []UserCreated{{"Ada"}, {"Grace"}}, eventbus.WithSource("import"))
	fmt.Println(err)
	// Output: <nil>
}

func ExampleWithDelay() {
	bus, err := eventbus.Open(context.Background(), "memory:")
	if err != nil {
		panic(err)
	}
	defer bus.Close()
	err = UsersCreated.Publish(context.Background(), bus, UserCreated{"Ada"}, eventbus.WithDelay(30*24*time.Hour))
	fmt.Println(err)
	// Output: <nil>
}

// An error that trying again will not mend goes to the dead-letter topic at
// once; from there it can be mended and sent back.
func ExampleReadDeadLetter() {
	ctx, stop := context.WithCancel(context.Background())
	bus, err := eventbus.Open(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer bus.Close()

	greeter := eventbus.NewService("greeter", bus, eventbus.Logger(discard))
	eventbus.Subscribe(greeter, UsersCreated, func(_ context.Context, e eventbus.Event[UserCreated]) error {
		if e.Data.Name == "" {
			return eventbus.Permanent(errors.New("user has no name"))
		}
		fmt.Println("hello,", e.Data.Name)
		stop()
		return nil
	})
	clerk := eventbus.NewService("clerk", bus)
	clerk.Handle("greeter.dead-letter", func(m *message.Message) error {
		dead, err := eventbus.ReadDeadLetter(m)
		if err != nil {
			return err
		}
		fmt.Println(dead.Topic, "failed in", dead.Group+":", dead.Cause)
		dead.Message.Payload = []byte(`{"Name":"Ada"}`)
		return dead.Redrive(m.Context(), bus)
	})
	if err := UsersCreated.Publish(ctx, bus, UserCreated{}); err != nil {
		panic(err)
	}
	ended := make(chan error)
	go func() { ended <- clerk.Run(ctx) }()
	fmt.Println(greeter.Run(ctx), <-ended)
	// Output:
	// users.created failed in greeter: user has no name
	// hello, Ada
	// <nil> <nil>
}

func ExampleRetryPolicy() {
	bus, err := eventbus.Open(context.Background(), "memory:")
	if err != nil {
		panic(err)
	}
	defer bus.Close()
	svc := eventbus.NewService("billing", bus, eventbus.Defaults(eventbus.Timeout(5*time.Second)))
	eventbus.Subscribe(svc, UsersCreated,
		func(context.Context, eventbus.Event[UserCreated]) error { return nil },
		eventbus.Concurrency(4),
		eventbus.Retry(eventbus.RetryPolicy{
			Tries:     2,
			Delays:    []time.Duration{time.Second, time.Minute},
			KeepOrder: true, // later events of the same user wait
		}))
	fmt.Println(svc.Validate())
	// Output: <nil>
}

// Any Watermill adapter can be the broker.
func ExampleFromWatermill() {
	pubSub := gochannel.NewGoChannel(gochannel.Config{Persistent: true}, watermill.NopLogger{})
	bus, err := eventbus.FromWatermill(eventbus.WatermillConfig{
		Publisher:  pubSub,
		Subscriber: func(group string) (message.Subscriber, error) { return pubSub, nil },
	})
	if err != nil {
		panic(err)
	}
	defer bus.Close()

	ctx, stop := context.WithCancel(context.Background())
	svc := eventbus.NewService("greeter", bus)
	eventbus.Subscribe(svc, UsersCreated, func(_ context.Context, e eventbus.Event[UserCreated]) error {
		fmt.Println("hello,", e.Data.Name)
		stop()
		return nil
	}, eventbus.Unordered()) // this adapter keeps no order per key
	if err := UsersCreated.Publish(ctx, bus, UserCreated{"Ada"}); err != nil {
		panic(err)
	}
	fmt.Println(svc.Run(ctx))
	// Output:
	// hello, Ada
	// <nil>
}

// A Bus is a Watermill Pub/Sub, for programs built on Watermill's Router.
func ExampleBus_Subscriber() {
	bus, err := eventbus.Open(context.Background(), "memory:")
	if err != nil {
		panic(err)
	}
	defer bus.Close()
	subscriber := bus.Subscriber("audit")
	defer subscriber.Close()
	messages, err := subscriber.Subscribe(context.Background(), "users.created")
	if err != nil {
		panic(err)
	}
	if err := bus.Publish("users.created", message.NewMessage("id-1", []byte("Ada"))); err != nil {
		panic(err)
	}
	m := <-messages
	fmt.Println(m.UUID, string(m.Payload))
	m.Ack()
	// Output: id-1 Ada
}

// While a breaker is open, the handler's intake pauses.
func ExampleThrough() {
	ctx, stop := context.WithCancel(context.Background())
	bus, err := eventbus.Open(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer bus.Close()
	breaker := resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Failures: 1, OpenFor: 50 * time.Millisecond}))
	calls := 0
	svc := eventbus.NewService("greeter", bus, eventbus.Logger(discard))
	eventbus.Subscribe(svc, UsersCreated, func(_ context.Context, e eventbus.Event[UserCreated]) error {
		if calls++; calls == 1 {
			return errors.New("the mail server is down")
		}
		fmt.Printf("hello, %s, by call %d; the breaker is %v\n", e.Data.Name, calls, breaker.State())
		stop()
		return nil
	}, eventbus.Through(breaker))
	if err := UsersCreated.Publish(ctx, bus, UserCreated{"Ada"}); err != nil {
		panic(err)
	}
	fmt.Println(svc.Run(ctx))
	// Output:
	// hello, Ada, by call 2; the breaker is half-open
	// <nil>
}
