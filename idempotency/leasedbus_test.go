package idempotency_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
)

// An event that another member works on is delivered again when the lease of that
// one ends: by then it is done, or it is taken over.
func TestEventInProgressElsewhereIsDeliveredAgainWhenTheLeaseEnds(t *testing.T) {
	for name, crashed := range map[string]bool{"done meanwhile": false, "crashed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { deliverWhileHeld(t, crashed) })
		})
	}
}

func deliverWhileHeld(t *testing.T, crashed bool) {
	store := newProbe()
	topic := eventbus.NewTopic[string]("orders")
	bus, err := eventbus.Open(t.Context(), "memory:")
	require.NoError(t, err)
	defer bus.Close()
	handled := make(chan time.Duration, 100)
	begin := time.Now()
	svc := eventbus.NewService("mailer", bus, eventbus.Logger(quiet))
	eventbus.Subscribe(svc, topic, idempotency.Leased(newGuard(store, idempotency.Policy{Wait: -1}),
		func(_ context.Context, _ idempotency.Claim, _ eventbus.Event[string]) error {
			handled <- time.Since(begin)
			return nil
		}))
	other := idempotency.Key{Scope: "mailer", ID: "4:shop:e1"}
	r, err := store.Claim(t.Context(), idempotency.ClaimRequest{Key: other, Lease: 30 * time.Second, Keep: time.Hour})
	require.NoError(t, err)
	require.Equal(t, idempotency.StateClaimed, r.State)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	require.NoError(t, topic.Publish(t.Context(), bus, "x", eventbus.WithID("e1"), eventbus.WithSource("shop")))
	time.Sleep(10 * time.Second)
	require.Empty(t, handled)
	if !crashed {
		require.NoError(t, store.Complete(t.Context(), r.Claim, []byte{1}, time.Hour))
	}
	time.Sleep(2 * time.Minute)
	stop()
	require.NoError(t, <-ended)
	if crashed {
		require.Len(t, handled, 1)
		at := <-handled
		require.GreaterOrEqual(t, at, 30*time.Second)
		require.Less(t, at, 40*time.Second)
	} else {
		require.Empty(t, handled)
	}
	require.LessOrEqual(t, store.claims.Load(), int32(4), "it comes when that makes sense, not in a loop")
}
