package warehouse

import (
	"context"
	"database/sql"
	"time"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// dispatch sends the goods of an order off: all of them or, if one is missing,
// none.
func (s *Service) dispatch(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.OrderCreated]) error {
	order := e.Data.Order
	need := quantities(order)
	missing, err := firstMissing(ctx, tx, order, need)
	if err != nil {
		return err
	}
	if missing != "" {
		return events.GoodsUnavailable.Publish(ctx, s.box.In(tx),
			events.OrderUnavailable{PaymentID: e.Data.PaymentID, Order: order, Reason: "out of stock: " + missing})
	}
	now := time.Now().UTC()
	changed, err := take(ctx, tx, order, need, now)
	if err != nil {
		return err
	}
	if err := events.StockChanged.PublishAll(ctx, s.box.In(tx), changed); err != nil {
		return err
	}
	return events.GoodsDispatched.Publish(ctx, s.box.In(tx), events.OrderDispatched{Order: order, At: now})
}

// announce publishes all stock. It happens whenever the warehouse opens, so that
// a storefront that lost its copy has it again.
func (s *Service) announce(ctx context.Context, tx *sql.Tx) error {
	stock, err := allStock(ctx, tx)
	if err != nil {
		return err
	}
	return events.StockChanged.PublishAll(ctx, s.box.In(tx), stock)
}

// quantities adds up an order's lines by SKU.
func quantities(o events.Order) map[string]int {
	need := map[string]int{}
	for _, l := range o.Lines {
		need[l.SKU] += l.Quantity
	}
	return need
}
