package eventbus_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
)

type orderPlaced struct {
	OrderID string
	Total   int
}

var (
	ordersPlaced = eventbus.NewTopic[orderPlaced]("orders.placed", eventbus.KeyBy(func(o orderPlaced) string { return o.OrderID }))
	ordersBilled = eventbus.NewTopic[orderPlaced]("orders.billed", eventbus.KeyBy(func(o orderPlaced) string { return o.OrderID }))
)

func openMemory(t *testing.T) *eventbus.Bus {
	t.Helper()
	bus, err := eventbus.Open(t.Context(), "memory:", eventbus.Source("test"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bus.Close()) })
	return bus
}

// run starts svc and returns a function that stops it and returns Run's error.
func run(t *testing.T, svc *eventbus.Service) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	select {
	case <-svc.Ready():
	case err := <-done:
		require.NoError(t, err)
	}
	return func() error { cancel(); return <-done }
}

func TestPublishedEventReachesHandlerWithItsEnvelope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := openMemory(t)
		got := make(chan eventbus.Event[orderPlaced], 2)
		svc := eventbus.NewService("billing", bus)
		eventbus.Subscribe(svc, ordersPlaced, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
			got <- e
			return ordersBilled.Publish(ctx, bus, e.Data)
		})
		eventbus.Subscribe(svc, ordersBilled, func(ctx context.Context, e eventbus.Event[orderPlaced]) error {
			got <- e
			return nil
		})
		stop := run(t, svc)
		require.NoError(t, ordersPlaced.Publish(t.Context(), bus, orderPlaced{"o-1", 42}))
		placed, billed := <-got, <-got
		require.Equal(t, orderPlaced{"o-1", 42}, placed.Data)
		require.Equal(t, "orders.placed", placed.Type)
		require.Equal(t, "test", placed.Source)
		require.Equal(t, "o-1", placed.Key)
		require.Equal(t, placed.ID, placed.CorrelationID)
		require.Empty(t, placed.CausationID)
		require.Equal(t, 1, placed.Attempt)
		require.Equal(t, "billing", placed.Group)
		require.Equal(t, "billing", billed.Source)
		require.Equal(t, placed.ID, billed.CorrelationID)
		require.Equal(t, placed.ID, billed.CausationID)
		require.NoError(t, stop())
	})
}

func TestFailurePathRetriesInPlaceThenDelayedThenDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := openMemory(t)
		start := time.Now()
		var calls []time.Duration
		svc := eventbus.NewService("billing", bus)
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			calls = append(calls, time.Since(start).Truncate(time.Second))
			return errors.New("no connection")
		}, eventbus.Retry(eventbus.RetryPolicy{Tries: 2, Delays: []time.Duration{10 * time.Second}}))
		stop := run(t, svc)
		dead := make(chan eventbus.DeadLetter, 1)
		ops := eventbus.NewService("ops", bus)
		ops.Handle("billing.dead-letter", readDeadLetter(dead))
		stopOps := run(t, ops)

		require.NoError(t, ordersPlaced.Publish(t.Context(), bus, orderPlaced{"o-1", 42}))
		d := <-dead
		require.Equal(t, []time.Duration{0, 0, 10 * time.Second, 10 * time.Second}, calls)
		require.Equal(t, "no connection", d.Cause)
		require.Equal(t, 2, d.Attempts)
		require.Equal(t, "orders.placed", d.Topic)
		require.JSONEq(t, `{"OrderID":"o-1","Total":42}`, string(d.Message.Payload))
		require.NoError(t, stop())
		require.NoError(t, stopOps())
	})
}

func TestLastDelayRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bus := openMemory(t)
		start := time.Now()
		var calls []time.Duration
		svc := eventbus.NewService("billing", bus)
		eventbus.Subscribe(svc, ordersPlaced, func(context.Context, eventbus.Event[orderPlaced]) error {
			calls = append(calls, time.Since(start))
			return errors.New("no connection")
		}, eventbus.Retry(eventbus.RetryPolicy{Tries: 1, Delays: []time.Duration{time.Second, 5 * time.Second}, Redeliveries: 4}))
		stop := run(t, svc)
		require.NoError(t, ordersPlaced.Publish(t.Context(), bus, orderPlaced{"o-1", 42}))
		time.Sleep(time.Hour) // virtual
		require.NoError(t, stop())
		require.Equal(t, []time.Duration{0, time.Second, 6 * time.Second, 11 * time.Second, 16 * time.Second}, calls)
	})
}
