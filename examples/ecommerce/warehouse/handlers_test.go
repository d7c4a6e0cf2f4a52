package warehouse

import (
	"context"
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/platform"
)

func openWarehouse(t *testing.T, dir string) *Service {
	t.Helper()
	bus, err := eventbus.Open(t.Context(), "memory:")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, bus.Close()) })
	s, err := New(t.Context(), platform.Env{Bus: bus, Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func dispatch(t *testing.T, s *Service, id string, lines ...events.Line) {
	t.Helper()
	e := events.OrderCreated{Order: events.Order{ID: id, Lines: lines}}
	require.NoError(t, s.box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		return s.dispatch(ctx, tx, eventbus.Event[events.OrderCreated]{Data: e})
	}))
}

func stockOf(t *testing.T, s *Service, sku string) (found events.Stock) {
	t.Helper()
	require.NoError(t, s.box.Transact(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		all, err := allStock(ctx, tx)
		for _, p := range all {
			if p.SKU == sku {
				found = p
			}
		}
		return err
	}))
	return found
}

func TestAllGoodsOfAnOrderLeaveOrNone(t *testing.T) {
	s := openWarehouse(t, t.TempDir())
	dispatch(t, s, "o-1", events.Line{SKU: "millstone", Quantity: 1}, events.Line{SKU: "bread-tin", Quantity: 2}, events.Line{SKU: "millstone", Quantity: 1})
	require.Equal(t, 1, stockOf(t, s, "millstone").Quantity)
	require.Equal(t, 4998, stockOf(t, s, "bread-tin").Quantity)

	dispatch(t, s, "o-2", events.Line{SKU: "bread-tin", Quantity: 1}, events.Line{SKU: "millstone", Quantity: 2})
	require.Equal(t, 1, stockOf(t, s, "millstone").Quantity)
	require.Equal(t, 4998, stockOf(t, s, "bread-tin").Quantity)

	dispatch(t, s, "o-3", events.Line{SKU: "unheard-of", Quantity: 1})
	dispatch(t, s, "o-4", events.Line{SKU: "millstone", Quantity: 1})
	left := stockOf(t, s, "millstone")
	require.Zero(t, left.Quantity)
	require.EqualValues(t, 3, left.Revision, "it grows with every change")
	require.Equal(t, len(assortment), left.Assortment)
}

func TestWarehouseIsFilledOnce(t *testing.T) {
	dir := t.TempDir()
	dispatch(t, openWarehouse(t, dir), "o-1", events.Line{SKU: "millstone", Quantity: 3})
	require.Zero(t, stockOf(t, openWarehouse(t, dir), "millstone").Quantity)
}
