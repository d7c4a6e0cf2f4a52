package storefront

import (
	"context"
	"database/sql"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// statusChanged brings the storefront's copy of an order up to date.
func (s *Service) statusChanged(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.OrderStatus]) error {
	return updateOrder(ctx, tx, e.Data)
}

// stockChanged brings the storefront's copy of a product up to date.
func (s *Service) stockChanged(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.Stock]) error {
	return updateProduct(ctx, tx, e.Data)
}

// emailSent keeps a copy of an e-mail.
func (s *Service) emailSent(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.Email]) error {
	return insertEmail(ctx, tx, e.Data)
}

// showOrder tells the open pages about an order once its change is committed. A
// page that misses it, because of a crash say, reads everything when it
// reconnects.
func (s *Service) showOrder(commit func(context.Context, eventbus.Event[events.OrderStatus]) error) func(context.Context, eventbus.Event[events.OrderStatus]) error {
	return func(ctx context.Context, e eventbus.Event[events.OrderStatus]) error {
		if err := commit(ctx, e); err != nil {
			return err
		}
		s.live.send("order", viewOf(e.Data))
		return nil
	}
}

// showStock tells the open pages about a product's new quantity.
func (s *Service) showStock(commit func(context.Context, eventbus.Event[events.Stock]) error) func(context.Context, eventbus.Event[events.Stock]) error {
	return func(ctx context.Context, e eventbus.Event[events.Stock]) error {
		if err := commit(ctx, e); err != nil {
			return err
		}
		s.live.send("stock", productOf(e.Data))
		return nil
	}
}
