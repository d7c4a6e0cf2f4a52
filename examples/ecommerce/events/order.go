// Package events is all that the shop's services know of each other: the topics
// and what is in their events. Events are fat, so that no consumer ever has to
// ask back. All events of an order have its id as key, those of stock the SKU.
package events

import "time"

// Order is an order as its customer placed it. It never changes, so every event
// about it carries all of it.
type Order struct {
	ID         string    `json:"order_id"`
	CustomerID string    `json:"customer_id"`
	Email      string    `json:"email"`
	Lines      []Line    `json:"lines"`
	Total      int64     `json:"total"` // cents
	PlacedAt   time.Time `json:"placed_at"`
}

// Line is one line of an order.
type Line struct {
	SKU      string `json:"sku"`
	Name     string `json:"name"`
	Quantity int    `json:"quantity"`
	Price    int64  `json:"price"` // cents apiece
}

// Status is how far an order has come.
type Status string

// The way of an order: pending, paid, confirmed, dispatched, shipped, delivered;
// from pending and confirmed it may end in cancelled instead.
const (
	Pending    Status = "pending"    // a temporary order, its payment requested
	Paid       Status = "paid"       // the payment was confirmed
	Confirmed  Status = "confirmed"  // the temporary order became a real one
	Dispatched Status = "dispatched" // the goods left the warehouse
	Shipped    Status = "shipped"    // the carrier has the parcel
	Delivered  Status = "delivered"  // the customer has it
	Cancelled  Status = "cancelled"  // holds neither money nor goods
)

// Final reports whether an order of this status has come to its end.
func (s Status) Final() bool { return s == Delivered || s == Cancelled }

// Change is one entry of an order's history.
type Change struct {
	Status Status    `json:"status"`
	At     time.Time `json:"at"`
}
