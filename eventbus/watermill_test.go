package eventbus_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	amqp "github.com/ThreeDotsLabs/watermill-amqp/v2/pkg/amqp"
	"github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
)

// The seam: the given adapters can be handed to a Bus, and a Bus to them.
var (
	_ message.Publisher  = (*eventbus.Bus)(nil)
	_ message.Publisher  = (*kafka.Publisher)(nil)
	_ message.Publisher  = (*amqp.Publisher)(nil)
	_ message.Publisher  = (*sql.Publisher)(nil)
	_ message.Subscriber = (*kafka.Subscriber)(nil)
	_ message.Subscriber = (*amqp.Subscriber)(nil)
	_ message.Subscriber = (*sql.Subscriber)(nil)
)

// Watermill's own suite passes on a Bus seen through Watermill's interfaces. Its
// messages have no keys, so order is not among its features.
func TestWatermillSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("Watermill's suite takes seconds")
	}
	bus, err := eventbus.Open(t.Context(), "memory:?buffer=20000") // the suite publishes 10,000 before it reads
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bus.Close()) })
	inGroup := func(_ *testing.T, group string) (message.Publisher, message.Subscriber) {
		return &shared{Bus: bus}, bus.Subscriber(group)
	}
	tests.TestPubSub(t, tests.Features{ConsumerGroups: true, Persistent: true},
		func(t *testing.T) (message.Publisher, message.Subscriber) { return inGroup(t, "test") }, inGroup)
}

// shared is a Bus as one of several connections.
type shared struct {
	*eventbus.Bus
	closed atomic.Bool
}

func (s *shared) Publish(topic string, m ...*message.Message) error {
	if s.closed.Load() {
		return eventbus.ErrClosed
	}
	return s.Bus.Publish(topic, m...)
}

func (s *shared) Close() error {
	s.closed.Store(true)
	return nil
}

func TestWatermillRouterOnABus(t *testing.T) {
	bus := openMemory(t)
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: time.Second}, watermill.NopLogger{})
	require.NoError(t, err)
	handled := make(chan string, 10)
	var failed atomic.Bool
	router.AddConsumerHandler("bill", "orders.placed", bus.Subscriber("billing"), func(m *message.Message) error {
		if failed.CompareAndSwap(false, true) {
			return errors.New("fails once")
		}
		handled <- string(m.Payload)
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- router.Run(ctx) }()
	<-router.Running()
	require.NoError(t, bus.Publish("orders.placed", message.NewMessage("a", []byte("first")), message.NewMessage("b", []byte("second"))))
	require.ElementsMatch(t, []string{"first", "second"}, []string{<-handled, <-handled})
	cancel()
	require.NoError(t, <-done)
}

// goChannel is a Bus over Watermill's in-memory Pub/Sub.
func goChannel(t *testing.T) *eventbus.Bus {
	ps := gochannel.NewGoChannel(gochannel.Config{Persistent: true}, watermill.NopLogger{})
	bus, err := eventbus.FromWatermill(eventbus.WatermillConfig{
		Publisher:  ps,
		Subscriber: func(string) (message.Subscriber, error) { return ps, nil },
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bus.Close()) })
	return bus
}

func TestServiceOnAWatermillAdapter(t *testing.T) {
	bus := goChannel(t)
	got := make(chan eventbus.Event[orderPlaced], 1)
	dead := make(chan eventbus.DeadLetter, 1)
	svc := eventbus.NewService("billing", bus, eventbus.Defaults(eventbus.Retry(eventbus.RetryPolicy{Tries: 2, Backoff: time.Millisecond})))
	calls := 0
	eventbus.Subscribe(svc, ordersPlaced, func(_ context.Context, e eventbus.Event[orderPlaced]) error {
		if calls++; calls == 1 {
			return errors.New("fails once")
		}
		got <- e
		return nil
	}, eventbus.Unordered())
	eventbus.Subscribe(svc, ordersBilled, func(context.Context, eventbus.Event[orderPlaced]) error {
		return errors.New("fails always")
	}, eventbus.Unordered())
	ops := eventbus.NewService("ops", bus)
	ops.Handle("billing.dead-letter", readDeadLetter(dead))
	stopOps, stop := run(t, ops), run(t, svc)
	require.NoError(t, ordersPlaced.Publish(t.Context(), bus, orderPlaced{"o-1", 1}))
	require.Equal(t, "o-1", (<-got).Data.OrderID)
	require.NoError(t, ordersBilled.Publish(t.Context(), bus, orderPlaced{"o-2", 1}))
	require.Equal(t, 1, (<-dead).Attempts, "no due times on this broker, so no delayed retries by default")
	require.NoError(t, stop())
	require.NoError(t, stopOps())
}

func TestHandlerSeesWhatTheAdapterPutIntoTheContext(t *testing.T) {
	type key struct{}
	messages := make(chan *message.Message, 1)
	bus, err := eventbus.FromWatermill(eventbus.WatermillConfig{Publisher: &nullPublisher{}, Subscriber: func(string) (message.Subscriber, error) {
		return chanSubscriber(messages), nil
	}})
	require.NoError(t, err)
	got := make(chan any, 1)
	svc := eventbus.NewService("billing", bus)
	svc.Handle("orders.placed", func(m *message.Message) error {
		got <- m.Context().Value(key{})
		return nil
	})
	stop := run(t, svc)
	m := message.NewMessageWithContext(context.WithValue(t.Context(), key{}, "partition 3"), "a", nil)
	messages <- m
	require.Equal(t, "partition 3", <-got)
	<-m.Acked()
	require.NoError(t, stop())
}

// Adapters leave the UUID empty for foreign messages; they must not all get one
// id, or an inbox would drop all but the first.
func TestForeignMessagesWithoutIDsAreToldApart(t *testing.T) {
	messages := make(chan *message.Message, 2)
	bus, err := eventbus.FromWatermill(eventbus.WatermillConfig{Publisher: &nullPublisher{}, Subscriber: func(string) (message.Subscriber, error) {
		return chanSubscriber(messages), nil
	}})
	require.NoError(t, err)
	got := make(chan string, 2)
	svc := eventbus.NewService("billing", bus)
	eventbus.Subscribe(svc, ordersPlaced, func(_ context.Context, e eventbus.Event[orderPlaced]) error {
		got <- e.ID
		return nil
	}, eventbus.Unordered())
	stop := run(t, svc)
	messages <- message.NewMessage("", []byte("{}"))
	messages <- message.NewMessage("", []byte("{}"))
	require.NotEqual(t, <-got, <-got)
	require.NoError(t, stop())
}

func TestFailedStartGivesUpWhatItHadSubscribedTo(t *testing.T) {
	subscribed := make(chan context.Context, 1)
	bus, err := eventbus.FromWatermill(eventbus.WatermillConfig{Publisher: &nullPublisher{}, Subscriber: func(group string) (message.Subscriber, error) {
		if group == "billing.second" {
			return nil, errors.New("no such group")
		}
		return contextSubscriber(subscribed), nil
	}})
	require.NoError(t, err)
	svc := eventbus.NewService("billing", bus)
	svc.Handle("orders.placed", func(*message.Message) error { return nil })
	svc.Handle("orders.placed", func(*message.Message) error { return nil }, eventbus.Named("second"))
	require.ErrorContains(t, svc.Run(t.Context()), "no such group")
	require.Error(t, (<-subscribed).Err(), "the first subscription goes on")
}

type contextSubscriber chan context.Context

func (c contextSubscriber) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	c <- ctx
	return make(chan *message.Message), nil
}
func (contextSubscriber) Close() error { return nil }

type chanSubscriber chan *message.Message

func (c chanSubscriber) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	return c, nil
}
func (chanSubscriber) Close() error { return nil }

func TestFromWatermillRefusesWhatItCannotPromise(t *testing.T) {
	_, err := eventbus.FromWatermill(eventbus.WatermillConfig{})
	require.EqualError(t, err, "eventbus: FromWatermill: the publisher is nil; even who only subscribes needs one, for dead letters")
	w := eventbus.WatermillConfig{Publisher: &nullPublisher{}}
	w.Capabilities.Delay = true
	_, err = eventbus.FromWatermill(w)
	require.ErrorIs(t, err, eventbus.ErrUnsupported)
}

func TestBusClosesTheWatermillPublisherOnce(t *testing.T) {
	p := &nullPublisher{}
	bus, err := eventbus.FromWatermill(eventbus.WatermillConfig{Publisher: p})
	require.NoError(t, err)
	require.NoError(t, bus.Close())
	require.NoError(t, bus.Close())
	require.Equal(t, 1, p.closed)
}
