package sagacrash

import (
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

// Order is what is placed, the state of its saga, and what its commands carry.
type Order struct {
	ID, Customer, SKU string
	Quantity, Cents   int64
	Fate              Fate
	Invoice           int64
}

// Answer is what participants say about an order.
type Answer struct{ OrderID string }

// Fate is what will happen to an order besides shortages, failures and crashes.
type Fate string

const (
	ordinary   Fate = ""
	declined   Fate = "declined"   // the payment
	slow       Fate = "slow"       // the payment is answered after the first timeout
	late       Fate = "late"       // after the last
	uninvoiced Fate = "uninvoiced" // the invoice is refused
)

const (
	paymentTimeout  = 2 * time.Second
	slowAnswer      = 3 * time.Second
	lateAnswer      = 8 * time.Second
	answerTimeout   = 3 * time.Second
	paymentAttempts = 3
)

// Names of the services, which are also those of their processes.
const (
	orders = "orders"
	stock  = "stock"
	sales  = "sales"
	shop   = "shop" // the test's own
)

const fulfilmentGroup = orders + ".fulfilment"

var (
	ordersPlaced    = byOrder("orders.placed", Order.id)
	reserveStock    = byOrder("stock.reserve", Order.id)
	releaseStock    = byOrder("stock.release", Order.id)
	takePayment     = byOrder("payment.take", Order.id)
	refundPayment   = byOrder("payment.refund", Order.id)
	shipOrder       = byOrder("shipping.ship", Order.id)
	stockReserved   = byOrder("stock.reserved", Answer.id)
	stockShort      = byOrder("stock.short", Answer.id)
	stockReleased   = byOrder("stock.released", Answer.id)
	paymentTaken    = byOrder("payment.taken", Answer.id)
	paymentDeclined = byOrder("payment.declined", Answer.id)
	orderShipped    = byOrder("shipping.shipped", Answer.id)
)

// readers are all topics with their only group.
var readers = map[string]string{
	ordersPlaced.Name(): fulfilmentGroup, "saga.fulfilment.control": fulfilmentGroup,
	stockReserved.Name(): fulfilmentGroup, stockShort.Name(): fulfilmentGroup, stockReleased.Name(): fulfilmentGroup,
	paymentTaken.Name(): fulfilmentGroup, paymentDeclined.Name(): fulfilmentGroup, orderShipped.Name(): fulfilmentGroup,
	reserveStock.Name(): stock, releaseStock.Name(): stock,
	takePayment.Name(): sales, refundPayment.Name(): sales, shipOrder.Name(): sales,
	orders + deadLetter: shop, stock + deadLetter: shop, sales + deadLetter: shop, saga.StuckAlerts("fulfilment").Name(): shop,
}

const deadLetter = ".dead-letter"

func (o Order) id() string  { return o.ID }
func (a Answer) id() string { return a.OrderID }

func byOrder[E any](name string, id func(E) string) eventbus.Topic[E] {
	return eventbus.NewTopic[E](name, eventbus.KeyBy(id))
}

// fulfilment is the saga. What has to succeed, behind the pivot and on the way
// back, is tried for as long as the test runs.
func fulfilment(l ledger) saga.Definition[Order] {
	persistent := saga.Retry{Attempts: 1000, Pause: 300 * time.Millisecond, MaxPause: time.Second}
	answer := func(t eventbus.Topic[Answer]) saga.Event[Order] { return saga.On[Order](t, Answer.id, nil) }
	return saga.Definition[Order]{
		Name: "fulfilment", Version: 1,
		StartedBy: saga.On(ordersPlaced, Order.id, func(o *Order, placed Order) {
			placed.Invoice = o.Invoice
			*o = placed
		}),
		Steps: []saga.Node[Order]{
			saga.Step[Order]{
				Name: "reserve stock", Do: command(reserveStock), Success: answer(stockReserved), Failure: answer(stockShort),
				Timeout: answerTimeout, Retry: persistent, Compensate: command(releaseStock), Compensated: answer(stockReleased),
			},
			saga.Step[Order]{
				Name: "take payment", Do: command(takePayment), Success: answer(paymentTaken), Failure: answer(paymentDeclined),
				Timeout: paymentTimeout, Retry: saga.Retry{Attempts: paymentAttempts, Pause: 300 * time.Millisecond},
				Compensate: command(refundPayment),
			},
			saga.Step[Order]{
				Name: "invoice", Do: saga.Call(l.write, func(o *Order, number int64) { o.Invoice = number }),
				Timeout: answerTimeout, Retry: persistent, Compensate: saga.Call(l.void, nil),
			},
			saga.Pivot[Order]{},
			saga.Step[Order]{Name: "ship", Do: command(shipOrder), Success: answer(orderShipped), Timeout: answerTimeout, Retry: persistent},
		},
	}
}

func command(t eventbus.Topic[Order]) saga.Action[Order] {
	return saga.Send(t, func(o Order) Order { return o })
}
