package storefront

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

func TestOrderNeverMovesBack(t *testing.T) {
	s := openStorefront(t, t.TempDir())
	id := decode[map[string]string](t, do(s, "POST", "/orders", goodOrder))["order_id"]
	o, err := oneOrder(t.Context(), s.db, id)
	require.NoError(t, err)

	way := []events.Status{events.Pending, events.Paid, events.Confirmed, events.Dispatched}
	var history []events.Change
	for i, status := range way {
		history = append(history, events.Change{Status: status, At: o.PlacedAt.Add(time.Duration(i) * time.Second)})
	}
	for _, n := range []int{2, 4, 3, 4, 1} { // how many changes the event knows of
		e := events.OrderStatus{Order: o.Order, Status: way[n-1], History: history[:n]}
		inTx(t, s, func(ctx context.Context, tx *sql.Tx) error {
			return s.statusChanged(ctx, tx, eventbus.Event[events.OrderStatus]{Data: e})
		})
	}
	shown, err := oneOrder(t.Context(), s.db, id)
	require.NoError(t, err)
	require.Equal(t, events.Dispatched, shown.Status)
	require.Equal(t, history, shown.History)
}

func TestNewestStockWins(t *testing.T) {
	s := openStorefront(t, t.TempDir())
	for _, e := range []events.Stock{
		{SKU: "tin", Name: "Bread tin", Price: 1490, Quantity: 3, Revision: 3, Assortment: 3},
		{SKU: "tin", Name: "Bread tin", Price: 1490, Quantity: 4, Revision: 2, Assortment: 3},
	} {
		inTx(t, s, func(ctx context.Context, tx *sql.Tx) error {
			return s.stockChanged(ctx, tx, eventbus.Event[events.Stock]{Data: e})
		})
	}
	products, err := allProducts(t.Context(), s.db)
	require.NoError(t, err)
	require.Equal(t, 3, products[0].Stock)
	require.EqualError(t, s.CanSell(t.Context()), "storefront: the warehouse has yet to announce 1 products or more")
}
