package email

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// notify writes one e-mail for one change of an order's status.
func (s *Service) notify(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.OrderStatus]) error {
	mail := compose(e.Data)
	mail.SentAt = time.Now().UTC()
	if err := insertNotification(ctx, tx, mail); err != nil {
		return err
	}
	return events.EmailsSent.Publish(ctx, s.box.In(tx), mail)
}

// compose words the e-mail about a change.
func compose(c events.OrderStatus) events.Email {
	text := map[events.Status]string{
		events.Pending:    "we have your order and are waiting for its payment",
		events.Paid:       "we have your payment",
		events.Confirmed:  "your order is confirmed",
		events.Dispatched: "your goods have left our warehouse",
		events.Shipped:    "your parcel is on its way",
		events.Delivered:  "your parcel was delivered",
		events.Cancelled:  "your order was cancelled and you owe us nothing: " + c.Reason,
	}[c.Status]
	return events.Email{
		OrderID: c.Order.ID,
		Status:  c.Status,
		To:      c.Order.Email,
		Subject: fmt.Sprintf("Your order %s is %s", c.Order.ID, c.Status),
		Body:    fmt.Sprintf("Dear %s, %s.", c.Order.CustomerID, text),
	}
}
