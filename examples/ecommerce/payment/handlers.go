package payment

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/faults"
)

// decide confirms or declines a payment.
func (s *Service) decide(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.PaymentRequested]) error {
	p, now := e.Data, time.Now().UTC()
	if s.declines(p.Order) {
		if err := enter(ctx, tx, p.PaymentID, p.Order, declined, now); err != nil {
			return err
		}
		return events.PaymentsDeclined.Publish(ctx, s.box.In(tx),
			events.PaymentDeclined{PaymentID: p.PaymentID, Order: p.Order, Reason: "payment declined", At: now})
	}
	if err := enter(ctx, tx, p.PaymentID, p.Order, confirmed, now); err != nil {
		return err
	}
	return events.PaymentsConfirmed.Publish(ctx, s.box.In(tx),
		events.PaymentConfirmed{PaymentID: p.PaymentID, Order: p.Order, At: now})
}

// refund gives the money for an order back that the warehouse can't fill.
func (s *Service) refund(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.OrderUnavailable]) error {
	p, now := e.Data, time.Now().UTC()
	held, err := balance(ctx, tx, p.Order.ID)
	if err != nil {
		return err
	}
	if held != p.Order.Total {
		return eventbus.Permanent(fmt.Errorf("payment: refund of order %s: it holds %d cents, not its total of %d", p.Order.ID, held, p.Order.Total))
	}
	if err := enter(ctx, tx, p.PaymentID, p.Order, refunded, now); err != nil {
		return err
	}
	return events.PaymentsRefunded.Publish(ctx, s.box.In(tx),
		events.PaymentRefunded{PaymentID: p.PaymentID, Order: p.Order, Reason: p.Reason, At: now})
}

// declines stands in for the bank: the same order always gets the same answer.
func (s *Service) declines(o events.Order) bool {
	return faults.Share(s.seed, o.ID) < s.decline
}
