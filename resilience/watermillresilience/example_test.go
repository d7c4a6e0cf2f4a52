package watermillresilience_test

import (
	"context"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/watermillresilience"
)

func Example() {
	policy := resilience.Must(resilience.NewPipeline("billing",
		resilience.Must(resilience.NewRetry(resilience.RetryConfig{Attempts: 3})),
		resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "billing"})),
		resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: time.Second})),
	))
	pubsub := gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		panic(err)
	}
	// What the policy turned away was not handled, and is no dead letter.
	poison, err := middleware.PoisonQueueWithFilter(pubsub, "orders.dead", func(err error) bool {
		return !resilience.IsRejected(err)
	})
	if err != nil {
		panic(err)
	}
	router.AddMiddleware(poison, watermillresilience.Middleware(policy, watermillresilience.Config{}))
	router.AddPublisherDecorators(watermillresilience.PublisherDecorator(policy, watermillresilience.PublisherConfig{}))

	done := make(chan struct{})
	attempt := 0
	router.AddConsumerHandler("billing", "orders", pubsub, func(m *message.Message) error {
		if attempt++; attempt == 1 {
			return fmt.Errorf("connection reset")
		}
		fmt.Printf("order %s at attempt %d\n", m.Payload, attempt)
		close(done)
		return nil
	})
	go func() {
		<-router.Running()
		if err := pubsub.Publish("orders", message.NewMessage(watermill.NewUUID(), []byte("4711"))); err != nil {
			panic(err)
		}
		<-done
		_ = router.Close()
	}()
	if err := router.Run(context.Background()); err != nil {
		panic(err)
	}
	// Output: order 4711 at attempt 2
}
