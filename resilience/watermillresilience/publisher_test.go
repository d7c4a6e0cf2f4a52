package watermillresilience_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/watermillresilience"
)

// recorder is a publisher that fails when told to, after it has published what
// comes before the message that it fails for.
type recorder struct {
	mu        sync.Mutex
	published []string
	fail      func(m *message.Message) error
	closed    int
}

func (r *recorder) Publish(_ string, messages ...*message.Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range messages {
		if r.fail != nil {
			if err := r.fail(m); err != nil {
				return err
			}
		}
		r.published = append(r.published, m.UUID)
	}
	return nil
}

func (r *recorder) Close() error {
	r.closed++
	return errDown
}

// failing fails for the message with the given id, so many times.
func failing(id string, times int) func(*message.Message) error {
	return func(m *message.Message) error {
		if m.UUID != id || times == 0 {
			return nil
		}
		times--
		return errDown
	}
}

func decorate(t *testing.T, p resilience.Policy, cfg watermillresilience.PublisherConfig, next message.Publisher) message.Publisher {
	t.Helper()
	pub, err := watermillresilience.PublisherDecorator(p, cfg)(next)
	require.NoError(t, err)
	return pub
}

func messages(ids ...string) []*message.Message {
	var all []*message.Message
	for _, id := range ids {
		all = append(all, message.NewMessage(id, nil))
	}
	return all
}

func TestRetryOfAPartlyPublishedBatch(t *testing.T) {
	for _, tt := range []struct {
		name  string
		batch bool
		want  []string
	}{
		{"message by message", false, []string{"1", "2", "3", "4"}},
		{"batch", true, []string{"1", "2", "1", "2", "1", "2", "3", "4"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{fail: failing("3", 2)}
				pub := decorate(t, retry(3), watermillresilience.PublisherConfig{Batch: tt.batch}, r)
				require.NoError(t, pub.Publish("orders", messages("1", "2", "3", "4")...))
				require.Equal(t, tt.want, r.published)
			})
		})
	}
}

func TestPublishErrorSaysHowFarItGot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{fail: failing("3", 100)}
		pub := decorate(t, retry(3), watermillresilience.PublisherConfig{}, r)
		err := pub.Publish("orders", messages("1", "2", "3", "4")...)
		var partly *watermillresilience.PublishError
		require.ErrorAs(t, err, &partly)
		require.Equal(t, 2, partly.Published)
		require.ErrorIs(t, err, errDown)
		require.EqualError(t, err, `watermillresilience: topic "orders": 2 of 4 messages were published: resilience: retry: gave up after 3 attempts (that is all): dependency is down`)
		require.Equal(t, []string{"1", "2"}, r.published)
		require.ErrorIs(t, pub.Publish("orders", messages("3")...), errDown)
	})
}

func TestPartlyPublishedIsNotRejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker(resilience.CircuitBreakerConfig{Failures: 1})
		r := &recorder{fail: func(m *message.Message) error {
			if m.UUID == "2" {
				b.Isolate()
			}
			return nil
		}}
		pub := decorate(t, b, watermillresilience.PublisherConfig{}, r)
		err := pub.Publish("orders", messages("1", "2", "3")...)
		require.ErrorIs(t, err, resilience.ErrOpen)
		require.False(t, resilience.IsRejected(err), "two messages were published")
		err = pub.Publish("orders", messages("3", "4")...)
		require.True(t, resilience.IsRejected(err))
	})
}

// A Router answers a Publish that fails with a redelivery at once, and calls the
// handler again: an open breaker that fails would make a hot loop of that.
func TestOpenBreakerOfARoutersPublisher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker(resilience.CircuitBreakerConfig{})
		b.Isolate()
		var deliveries counter
		r := run(t, func(router *message.Router, pubsub *gochannel.GoChannel) {
			router.AddMiddleware(deliveries.middleware)
			router.AddPublisherDecorators(watermillresilience.PublisherDecorator(b, watermillresilience.PublisherConfig{}))
			router.AddHandler("billing", "orders", pubsub, "billed", pubsub, func(*message.Message) ([]*message.Message, error) {
				return messages("billed"), nil
			})
		})
		r.publish("orders", 1)
		time.Sleep(59 * time.Second)
		calls, _ := deliveries.get()
		require.Equal(t, 6, calls, "once in ten seconds")
		b.Close()
		time.Sleep(time.Minute)
		again, _ := deliveries.get()
		require.Equal(t, 6, again, "it was published")
		r.stop()
	})
}

func TestPublisherMaxPause(t *testing.T) {
	for _, tt := range []struct {
		name       string
		configured time.Duration
		want       time.Duration
	}{
		{"by default", 0, 10 * time.Second},
		{"configured", time.Minute, time.Minute},
		{"none", -1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := breaker(resilience.CircuitBreakerConfig{})
				b.Isolate()
				pub := decorate(t, b, watermillresilience.PublisherConfig{MaxPause: tt.configured}, &recorder{})
				start := time.Now()
				err := pub.Publish("orders", messages("1")...)
				require.True(t, resilience.IsRejected(err))
				require.Equal(t, tt.want, time.Since(start))
			})
		})
	}
}

func TestPublisherWaitEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := breaker(resilience.CircuitBreakerConfig{})
		b.Isolate()
		pub := decorate(t, b, watermillresilience.PublisherConfig{}, &recorder{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := pub.Publish("orders", message.NewMessageWithContext(ctx, "1", nil))
		require.ErrorIs(t, err, resilience.ErrOpen)
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestPublishersContexts(t *testing.T) {
	type key struct{}
	for _, batch := range []bool{false, true} {
		var seen []any
		var attempts []error
		r := &recorder{fail: func(m *message.Message) error {
			_, limited := m.Context().Deadline()
			require.True(t, limited, "the attempt's context")
			seen = append(seen, m.Context().Value(key{}))
			attempts = append(attempts, m.Context().Err())
			return nil
		}}
		pub := decorate(t, timeout(time.Minute), watermillresilience.PublisherConfig{Batch: batch}, r)
		first := message.NewMessageWithContext(context.WithValue(t.Context(), key{}, "a"), "1", nil)
		second := message.NewMessageWithContext(context.WithValue(t.Context(), key{}, "b"), "2", nil)
		before := []context.Context{first.Context(), second.Context()}
		require.NoError(t, pub.Publish("orders", first, second))
		require.Equal(t, []any{"a", "b"}, seen, "each message's values")
		require.Equal(t, []error{nil, nil}, attempts)
		require.Equal(t, before, []context.Context{first.Context(), second.Context()}, "restored")
	}
}

func TestPublishOfNothing(t *testing.T) {
	b := breaker(resilience.CircuitBreakerConfig{})
	b.Isolate()
	require.NoError(t, decorate(t, b, watermillresilience.PublisherConfig{}, &recorder{}).Publish("orders"))
}

func TestCloseIsPassedOnOnce(t *testing.T) {
	r := &recorder{}
	pub := decorate(t, retry(3), watermillresilience.PublisherConfig{}, r)
	require.ErrorIs(t, pub.Close(), errDown)
	require.ErrorIs(t, pub.Close(), errDown)
	require.Equal(t, 1, r.closed)
}

func TestPublisherKeepsTheErrorOfAMessageAlone(t *testing.T) {
	permanent := resilience.AsPermanent(errors.New("too large"))
	r := &recorder{fail: func(*message.Message) error { return permanent }}
	require.Equal(t, permanent, decorate(t, retry(3), watermillresilience.PublisherConfig{}, r).Publish("orders", messages("1")...))
}
