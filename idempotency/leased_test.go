package idempotency_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/idempotency"
)

// mailed collects what a handler without a database did.
type mailed []string

func (m *mailed) handle(_ context.Context, _ idempotency.Claim, e eventbus.Event[string]) error {
	*m = append(*m, e.Group+"/"+e.Source+"/"+e.ID)
	return nil
}

func mail(id string) eventbus.Event[string] {
	return eventbus.Event[string]{
		Attributes: eventbus.Attributes{ID: id, Source: "shop"},
		Delivery:   eventbus.Delivery{Topic: "orders", Group: "billing"},
	}
}

func TestLeasedHandlesEachEventOncePerGroupAndSource(t *testing.T) {
	var sent mailed
	handle := idempotency.Leased(newGuard(newProbe(), idempotency.Policy{}), sent.handle)
	base := mail("e1")
	group, source, none, colons, shifted := base, base, base, base, base
	group.Group, source.Source, none.Source, colons.Source, colons.ID, shifted.Source, shifted.ID = "shipping", "erp", "", "a:b", "c", "a", "b:c"
	for range 3 {
		for _, e := range []eventbus.Event[string]{base, group, source, none, colons, shifted} {
			require.NoError(t, handle(t.Context(), e))
		}
	}
	require.Equal(t, mailed{"billing/shop/e1", "shipping/shop/e1", "billing/erp/e1", "billing//e1", "billing/a:b/c", "billing/a/b:c"}, sent)
}

func TestLeasedHandlerThatFailsRunsAgain(t *testing.T) {
	attempts := []int{}
	failure := errors.New("smtp")
	handle := idempotency.Leased(newGuard(newProbe(), idempotency.Policy{}), func(_ context.Context, c idempotency.Claim, _ eventbus.Event[string]) error {
		attempts = append(attempts, c.Attempt)
		if c.Attempt < 3 {
			return failure
		}
		return nil
	})
	require.Same(t, failure, handle(t.Context(), mail("e1")))
	require.Same(t, failure, handle(t.Context(), mail("e1")))
	require.NoError(t, handle(t.Context(), mail("e1")))
	require.NoError(t, handle(t.Context(), mail("e1")))
	require.Equal(t, []int{1, 2, 3}, attempts)
}

func TestLeasedRefusesOldEventsItKnowsNothingOf(t *testing.T) {
	var sent mailed
	g := newGuard(newProbe(), idempotency.Policy{})
	old, timeless := mail("old"), mail("timeless")
	old.Time = time.Now().Add(-31 * 24 * time.Hour)
	err := idempotency.Leased(g, sent.handle)(t.Context(), old)
	require.ErrorIs(t, err, idempotency.ErrTooOld)
	require.True(t, eventbus.IsPermanent(err), "it becomes a dead letter")
	require.NoError(t, idempotency.Leased(g, sent.handle)(t.Context(), timeless))
	require.NoError(t, idempotency.Leased(g, sent.handle, idempotency.AnyAge())(t.Context(), old))
	require.Len(t, sent, 2)
}

func TestLeasedEventWithoutIDOrGroupIsAPermanentError(t *testing.T) {
	var sent mailed
	handle := idempotency.Leased(newGuard(newProbe(), idempotency.Policy{}), sent.handle)
	noID, noGroup := mail(""), mail("e1")
	noGroup.Group = ""
	for _, e := range []eventbus.Event[string]{noID, noGroup} {
		require.True(t, eventbus.IsPermanent(handle(t.Context(), e)))
	}
	require.True(t, eventbus.IsPermanent(idempotency.Leased[string](nil, nil)(t.Context(), mail("e1"))))
	require.Empty(t, sent)
}

// To deliver an event again whose effect is known to have happened would repeat it.
func TestLeasedAcknowledgesWhatHappenedButCouldNotBeRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent mailed
		store := newProbe()
		store.onComplete = func() error { return errors.New("down") }
		require.NoError(t, idempotency.Leased(newGuard(store, idempotency.Policy{}), sent.handle)(t.Context(), mail("e1")))
		require.Len(t, sent, 1)
	})
}
