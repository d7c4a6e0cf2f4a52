package main

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/sony/gobreaker"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/watermillresilience"
)

// watermillHandlers are handlers of Watermill's router within policies, and
// within the middleware that comes with it.
func watermillHandlers() []group {
	retry := middleware.Retry{MaxRetries: 2, InitialInterval: time.Millisecond}.Middleware
	breaker := middleware.NewCircuitBreaker(gobreaker.Settings{}).Middleware
	timeout := middleware.Timeout(time.Second)
	return []group{
		watermillGroup("retry", newRetry(), retry),
		watermillGroup("breaker", newBreaker(resilience.CircuitBreakerConfig{}), breaker),
		watermillGroup("retry > breaker > timeout", newPipeline(), retry, breaker, timeout),
	}
}

func watermillGroup(title string, p resilience.Policy, theirs ...message.HandlerMiddleware) group {
	return group{title: "Watermill handler, " + title, bare: handled("handler"), variants: []variant{
		handled("by hand: the policy", handPolicy(p)),
		handled("millrace middleware", watermillresilience.Middleware(p, watermillresilience.Config{})),
		handled("Watermill's middleware", theirs...),
	}}
}

// handPolicy is the least that calls a handler through a policy.
func handPolicy(p resilience.Policy) message.HandlerMiddleware {
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(m *message.Message) ([]*message.Message, error) {
			return resilience.Get(m.Context(), p, func(ctx context.Context) ([]*message.Message, error) {
				m.SetContext(ctx)
				return h(m)
			})
		}
	}
}

func handle(m *message.Message) ([]*message.Message, error) { return nil, work(m.Context()) }

// handled is a handler within middlewares, the first one outermost. Each
// goroutine has a message of its own.
func handled(name string, within ...message.HandlerMiddleware) variant {
	var handler message.HandlerFunc = handle
	for i := len(within) - 1; i >= 0; i-- {
		handler = within[i](handler)
	}
	return variant{name, func() func() error {
		m := message.NewMessage("id", make([]byte, 1024))
		return func() error {
			m.SetContext(ctx)
			_, err := handler(m)
			return err
		}
	}}
}
