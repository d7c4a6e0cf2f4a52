package watermillresilience

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/resilience"
)

// Config configures a Middleware. The zero value is safe.
type Config struct {
	// MaxPause is how long a message is held after the policy has turned it away for
	// the first time; then the error is returned. Brokers take messages away from
	// consumers that hold them for too long, RabbitMQ after half an hour: leave
	// time for the handler. Negative means not at all. Defaults to 10 min.
	MaxPause time.Duration
}

const defaultMaxPause = 10 * time.Minute

// Middleware returns a middleware that has the handler called through p. It
// panics if p is nil or has a Hedge.
//
// A message that p turns away waits, see the package's documentation. So does
// one whose handler was called and failed, if p turned its next attempt away: an
// outage does not use up the attempts of the messages that met it. An error of
// the handler itself for which resilience.IsRejected is true, such as that of a
// breaker it uses, counts as well, and the handler is called again, unless the
// error is Permanent.
func Middleware(p resilience.Policy, cfg Config) message.HandlerMiddleware {
	if err := suits(p); err != nil {
		panic(err)
	}
	if cfg.MaxPause == 0 {
		cfg.MaxPause = defaultMaxPause
	}
	return func(h message.HandlerFunc) message.HandlerFunc {
		return func(m *message.Message) ([]*message.Message, error) {
			produced, err := handle(p, h, m)
			for w := (pausing{most: cfg.MaxPause}); turnedAway(err) && w.wait(m.Context(), err); {
				produced, err = handle(p, h, m)
			}
			return produced, err
		}
	}
}

// handle calls h through p.
func handle(p resilience.Policy, h message.HandlerFunc, m *message.Message) ([]*message.Message, error) {
	original := m.Context()
	produced, err := resilience.Get(original, p, func(ctx context.Context) ([]*message.Message, error) {
		m.SetContext(ctx)
		defer m.SetContext(original)
		return h(m)
	})
	revive(original, produced)
	return produced, err
}
