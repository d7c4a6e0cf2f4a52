package events

import (
	"time"

	"github.com/millrace-go/millrace/eventbus"
)

// Topics that the storefront publishes.
var (
	// OrdersPlaced has the orders that the storefront accepted.
	OrdersPlaced = eventbus.NewTopic[OrderPlaced]("orders.placed",
		eventbus.KeyBy(func(e OrderPlaced) string { return e.Order.ID }))
)

// Topics that the order service publishes.
var (
	// PaymentsRequested asks for the payment of a temporary order.
	PaymentsRequested = eventbus.NewTopic[PaymentRequested]("payments.requested",
		eventbus.KeyBy(func(e PaymentRequested) string { return e.Order.ID }))

	// OrdersCreated has the orders that were paid for and may be dispatched.
	OrdersCreated = eventbus.NewTopic[OrderCreated]("orders.created",
		eventbus.KeyBy(func(e OrderCreated) string { return e.Order.ID }))

	// OrdersStatus has every change of every order's status. It is one topic, so
	// the changes of an order arrive in the order in which they happened.
	OrdersStatus = eventbus.NewTopic[OrderStatus]("orders.status",
		eventbus.KeyBy(func(e OrderStatus) string { return e.Order.ID }))
)

// Topics that the payment service publishes.
var (
	PaymentsConfirmed = eventbus.NewTopic[PaymentConfirmed]("payments.confirmed",
		eventbus.KeyBy(func(e PaymentConfirmed) string { return e.Order.ID }))

	PaymentsDeclined = eventbus.NewTopic[PaymentDeclined]("payments.declined",
		eventbus.KeyBy(func(e PaymentDeclined) string { return e.Order.ID }))

	PaymentsRefunded = eventbus.NewTopic[PaymentRefunded]("payments.refunded",
		eventbus.KeyBy(func(e PaymentRefunded) string { return e.Order.ID }))
)

// Topics that the warehouse publishes.
var (
	// GoodsDispatched has the orders whose goods left the warehouse.
	GoodsDispatched = eventbus.NewTopic[OrderDispatched]("goods.dispatched",
		eventbus.KeyBy(func(e OrderDispatched) string { return e.Order.ID }))

	// GoodsUnavailable has the orders that the warehouse can't fill.
	GoodsUnavailable = eventbus.NewTopic[OrderUnavailable]("goods.unavailable",
		eventbus.KeyBy(func(e OrderUnavailable) string { return e.Order.ID }))

	// StockChanged has every change of a product's quantity.
	StockChanged = eventbus.NewTopic[Stock]("stock.changed",
		eventbus.KeyBy(func(e Stock) string { return e.SKU }))
)

// Topics that the shipping service publishes.
var (
	ParcelsShipped = eventbus.NewTopic[Parcel]("parcels.shipped",
		eventbus.KeyBy(func(e Parcel) string { return e.Order.ID }))

	// ParcelsDue is the shipping service's own calendar: a parcel arrives when
	// its event does, which was published with a delay.
	ParcelsDue = eventbus.NewTopic[Parcel]("parcels.due",
		eventbus.KeyBy(func(e Parcel) string { return e.Order.ID }))

	ParcelsDelivered = eventbus.NewTopic[Parcel]("parcels.delivered",
		eventbus.KeyBy(func(e Parcel) string { return e.Order.ID }))
)

// Topics that the email service publishes.
var (
	// EmailsSent has every e-mail that was sent.
	EmailsSent = eventbus.NewTopic[Email]("emails.sent",
		eventbus.KeyBy(func(e Email) string { return e.OrderID }))
)

// OrderPlaced says that the storefront accepted an order.
type OrderPlaced struct {
	Order Order `json:"order"`
}

// PaymentRequested asks the payment service to collect Order.Total.
type PaymentRequested struct {
	PaymentID string `json:"payment_id"`
	Order     Order  `json:"order"`
}

// PaymentConfirmed says that the shop has the money.
type PaymentConfirmed struct {
	PaymentID string    `json:"payment_id"`
	Order     Order     `json:"order"`
	At        time.Time `json:"at"`
}

// PaymentDeclined says that the shop will not get the money.
type PaymentDeclined struct {
	PaymentID string    `json:"payment_id"`
	Order     Order     `json:"order"`
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`
}

// PaymentRefunded says that the customer has the money back, and why.
type PaymentRefunded struct {
	PaymentID string    `json:"payment_id"`
	Order     Order     `json:"order"`
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`
}

// OrderCreated says that a temporary order became a real one.
type OrderCreated struct {
	PaymentID string `json:"payment_id"`
	Order     Order  `json:"order"`
}

// OrderStatus says that an order's status changed. History ends with the change.
type OrderStatus struct {
	Order     Order    `json:"order"`
	PaymentID string   `json:"payment_id"`
	Status    Status   `json:"status"`
	Reason    string   `json:"reason,omitempty"` // of a cancellation
	History   []Change `json:"history"`
}

// OrderDispatched says that all goods of an order left the warehouse.
type OrderDispatched struct {
	Order Order     `json:"order"`
	At    time.Time `json:"at"`
}

// OrderUnavailable says that no goods of an order will leave the warehouse.
type OrderUnavailable struct {
	PaymentID string `json:"payment_id"`
	Order     Order  `json:"order"`
	Reason    string `json:"reason"`
}

// Stock is a product and how many of it there are. Of two, the one with the
// greater Revision is newer.
type Stock struct {
	SKU        string `json:"sku"`
	Name       string `json:"name"`
	Price      int64  `json:"price"` // cents
	Quantity   int    `json:"quantity"`
	Revision   int64  `json:"revision"`
	Assortment int    `json:"assortment"` // how many products the warehouse has
}

// Parcel is an order on its way.
type Parcel struct {
	ParcelID string    `json:"parcel_id"`
	Order    Order     `json:"order"`
	At       time.Time `json:"at"`
}

// Email is an e-mail about one status of an order.
type Email struct {
	OrderID string    `json:"order_id"`
	Status  Status    `json:"status"`
	To      string    `json:"to"`
	Subject string    `json:"subject"`
	Body    string    `json:"body"`
	SentAt  time.Time `json:"sent_at"`
}
