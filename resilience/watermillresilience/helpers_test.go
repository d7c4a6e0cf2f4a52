package watermillresilience_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
)

var errDown = errors.New("dependency is down")

func breaker(cfg resilience.CircuitBreakerConfig) *resilience.CircuitBreaker {
	return resilience.Must(resilience.NewCircuitBreaker(cfg))
}

func retry(attempts int) *resilience.Retry {
	return resilience.Must(resilience.NewRetry(resilience.RetryConfig{Attempts: attempts, Budget: resilience.Unlimited()}))
}

func timeout(d time.Duration) *resilience.Timeout {
	return resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: d}))
}

func pipeline(policies ...resilience.Policy) *resilience.Pipeline {
	return resilience.Must(resilience.NewPipeline("", policies...))
}

// counter counts deliveries from outside of what is tested. After a thousand it
// holds them up: virtual time stands still while a loop is hot.
type counter struct {
	mu           sync.Mutex
	calls, fails int
}

func (c *counter) middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(m *message.Message) ([]*message.Message, error) {
		produced, err := h(m)
		c.mu.Lock()
		c.calls++
		if err != nil {
			c.fails++
		}
		hot := c.calls > 1000
		c.mu.Unlock()
		if hot {
			time.Sleep(24 * time.Hour)
		}
		return produced, err
	}
}

func (c *counter) get() (calls, fails int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls, c.fails
}

// running is a Router on a memory broker, in a bubble of virtual time.
type running struct {
	t      *testing.T
	pubsub *gochannel.GoChannel
	router *message.Router
	ended  chan error
}

// run starts what add adds to the router; the test stops it.
func run(t *testing.T, add func(r *message.Router, pubsub *gochannel.GoChannel)) *running {
	t.Helper()
	pubsub := gochannel.NewGoChannel(gochannel.Config{}, watermill.NopLogger{})
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: time.Minute}, watermill.NopLogger{})
	require.NoError(t, err)
	add(router, pubsub)
	r := &running{t: t, pubsub: pubsub, router: router, ended: make(chan error, 1)}
	go func() { r.ended <- router.Run(context.Background()) }()
	<-router.Running()
	t.Cleanup(func() { _ = pubsub.Close() })
	return r
}

func (r *running) publish(topic string, n int) {
	r.t.Helper()
	for i := range n {
		require.NoError(r.t, r.pubsub.Publish(topic, message.NewMessage(fmt.Sprint(i), nil)))
	}
}

func (r *running) stop() {
	r.t.Helper()
	require.NoError(r.t, r.router.Close())
	require.NoError(r.t, <-r.ended)
	require.NoError(r.t, r.pubsub.Close())
}
