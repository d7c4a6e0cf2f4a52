package storefront

import (
	"time"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// orderView is an order as the API shows it.
type orderView struct {
	events.Order
	Status  events.Status   `json:"status"`
	Reason  string          `json:"reason,omitempty"` // of a cancellation
	History []events.Change `json:"history"`
}

func viewOf(e events.OrderStatus) orderView {
	return orderView{Order: e.Order, Status: e.Status, Reason: e.Reason, History: e.History}
}

// accepted is an order that nobody but the storefront knows yet.
func accepted(o events.Order) orderView {
	return orderView{Order: o, Status: events.Pending, History: []events.Change{{Status: events.Pending, At: o.PlacedAt}}}
}

// productView is a product as the API shows it. Of two, the one with the greater
// revision is newer.
type productView struct {
	SKU      string `json:"sku"`
	Name     string `json:"name"`
	Price    int64  `json:"price"` // cents
	Stock    int    `json:"stock"`
	Revision int64  `json:"revision"`
}

func productOf(s events.Stock) productView {
	return productView{SKU: s.SKU, Name: s.Name, Price: s.Price, Stock: s.Quantity, Revision: s.Revision}
}

// emailView is an e-mail as the API shows it.
type emailView struct {
	OrderID string        `json:"order_id"`
	Status  events.Status `json:"status"`
	To      string        `json:"to"`
	Subject string        `json:"subject"`
	Body    string        `json:"body"`
	SentAt  time.Time     `json:"sent_at"`
}
