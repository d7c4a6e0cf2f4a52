package order

import (
	"context"
	"database/sql"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// placed makes a temporary order with a payment attached.
func (s *Service) placed(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.OrderPlaced]) error {
	return s.learn(ctx, tx, e.Data.Order, placed, detail{At: e.Data.Order.PlacedAt})
}

func (s *Service) paymentConfirmed(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.PaymentConfirmed]) error {
	return s.learn(ctx, tx, e.Data.Order, paymentConfirmed, detail{At: e.Data.At})
}

func (s *Service) paymentDeclined(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.PaymentDeclined]) error {
	return s.learn(ctx, tx, e.Data.Order, paymentDeclined, detail{At: e.Data.At, Reason: e.Data.Reason})
}

// paymentRefunded cancels an order that the warehouse could not fill: only when
// the customer has the money back, so that a cancelled order never holds any.
func (s *Service) paymentRefunded(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.PaymentRefunded]) error {
	return s.learn(ctx, tx, e.Data.Order, paymentRefunded, detail{At: e.Data.At, Reason: e.Data.Reason})
}

func (s *Service) dispatched(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.OrderDispatched]) error {
	return s.learn(ctx, tx, e.Data.Order, dispatched, detail{At: e.Data.At})
}

func (s *Service) shipped(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.Parcel]) error {
	return s.learn(ctx, tx, e.Data.Order, shipped, detail{At: e.Data.At})
}

func (s *Service) delivered(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.Parcel]) error {
	return s.learn(ctx, tx, e.Data.Order, delivered, detail{At: e.Data.At})
}

// learn adds a fact to an order and publishes what follows from it.
func (s *Service) learn(ctx context.Context, tx *sql.Tx, about events.Order, f fact, d detail) error {
	o, err := load(ctx, tx, about)
	if err != nil {
		return err
	}
	changes := o.learn(f, d)
	if err := save(ctx, tx, o); err != nil {
		return err
	}
	first := len(o.history) - len(changes)
	for i, c := range changes {
		if err := s.publish(ctx, tx, o, c.Status, o.history[:first+i+1]); err != nil {
			return err
		}
	}
	return nil
}

// publish tells of a change of status, and asks for what comes next.
func (s *Service) publish(ctx context.Context, tx *sql.Tx, o *order, status events.Status, history []events.Change) error {
	change := events.OrderStatus{Order: o.Order, PaymentID: o.paymentID, Status: status, History: history}
	switch status {
	case events.Pending:
		if err := events.PaymentsRequested.Publish(ctx, s.box.In(tx), events.PaymentRequested{PaymentID: o.paymentID, Order: o.Order}); err != nil {
			return err
		}
	case events.Confirmed:
		if err := events.OrdersCreated.Publish(ctx, s.box.In(tx), events.OrderCreated{PaymentID: o.paymentID, Order: o.Order}); err != nil {
			return err
		}
	case events.Cancelled:
		change.Reason = o.reason
	}
	return events.OrdersStatus.Publish(ctx, s.box.In(tx), change)
}
