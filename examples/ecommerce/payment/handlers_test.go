package payment

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/platform"
)

func openPayment(t *testing.T, decline float64) *Service {
	t.Helper()
	bus, err := eventbus.Open(t.Context(), "memory:")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bus.Close()) })
	s, err := New(t.Context(), platform.Env{Bus: bus, Dir: t.TempDir(), Decline: decline, Seed: 1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestDeclinesTheGivenShareAndTheSameOrdersEachTime(t *testing.T) {
	for _, share := range []float64{0, 0.2, 1} {
		s := openPayment(t, share)
		declined := 0
		for i := range 1000 {
			o := events.Order{ID: fmt.Sprintf("order-%d", i)}
			if s.declines(o) {
				declined++
			}
			require.Equal(t, s.declines(o), s.declines(o))
		}
		require.InDelta(t, share*1000, declined, 40)
	}
}

func TestRefundGivesBackWhatIsHeldAndNoMore(t *testing.T) {
	s := openPayment(t, 0)
	o := events.Order{ID: "o-1", Total: 250}
	refund := func(ctx context.Context, tx *sql.Tx) error {
		return s.refund(ctx, tx, eventbus.Event[events.OrderUnavailable]{Data: events.OrderUnavailable{PaymentID: "p-1", Order: o, Reason: "out of stock"}})
	}
	err := s.box.Transact(t.Context(), refund)
	require.ErrorContains(t, err, "payment: refund of order o-1: it holds 0 cents, not its total of 250")
	require.True(t, eventbus.IsPermanent(err))

	require.NoError(t, s.box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		return s.decide(ctx, tx, eventbus.Event[events.PaymentRequested]{Data: events.PaymentRequested{PaymentID: "p-1", Order: o}})
	}))
	require.EqualValues(t, 250, held(t, s, o.ID))
	require.NoError(t, s.box.Transact(t.Context(), refund))
	require.Zero(t, held(t, s, o.ID))
	require.Error(t, s.box.Transact(t.Context(), refund), "a second time")
	require.Zero(t, held(t, s, o.ID))
}

func held(t *testing.T, s *Service, orderID string) (cents int64) {
	t.Helper()
	require.NoError(t, s.box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) (err error) {
		cents, err = balance(ctx, tx, orderID)
		return err
	}))
	return cents
}
