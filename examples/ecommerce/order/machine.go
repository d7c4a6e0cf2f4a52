package order

import (
	"time"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// fact is something that happened to an order.
type fact string

const (
	placed           fact = "placed"
	paymentConfirmed fact = "payment confirmed"
	paymentDeclined  fact = "payment declined"
	paymentRefunded  fact = "payment refunded"
	dispatched       fact = "dispatched"
	shipped          fact = "shipped"
	delivered        fact = "delivered"
)

// detail is when a fact happened and, if that needs saying, why.
type detail struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
}

// transitions is the way of an order. Events of different topics may overtake
// each other, so a fact that is early is kept until an order gets there.
var transitions = []struct {
	from events.Status
	on   fact
	to   events.Status
}{
	{"", placed, events.Pending},
	{events.Pending, paymentDeclined, events.Cancelled},
	{events.Pending, paymentConfirmed, events.Paid},
	{events.Paid, paymentConfirmed, events.Confirmed},
	{events.Confirmed, paymentRefunded, events.Cancelled},
	{events.Confirmed, dispatched, events.Dispatched},
	{events.Dispatched, shipped, events.Shipped},
	{events.Shipped, delivered, events.Delivered},
}

// order is an order, what is known about it, and how far it has come.
type order struct {
	events.Order
	paymentID string
	facts     map[fact]detail
	status    events.Status
	reason    string
	history   []events.Change
}

// learn adds a fact, unless it is known already, and returns the changes of
// status that it leads to.
func (o *order) learn(f fact, d detail) []events.Change {
	if _, known := o.facts[f]; known {
		return nil
	}
	o.facts[f] = d
	before := len(o.history)
	for o.step() {
	}
	return o.history[before:]
}

// step takes the one transition that the facts allow, if there is one.
func (o *order) step() bool {
	for _, t := range transitions {
		d, known := o.facts[t.on]
		if t.from != o.status || !known {
			continue
		}
		o.status = t.to
		if t.to == events.Cancelled {
			o.reason = d.Reason
		}
		o.history = append(o.history, events.Change{Status: t.to, At: o.notBeforeLast(d.At)})
		return true
	}
	return false
}

// notBeforeLast keeps the history's times in order although they were taken by
// the clocks of several services.
func (o *order) notBeforeLast(at time.Time) time.Time {
	if n := len(o.history); n > 0 && at.Before(o.history[n-1].At) {
		return o.history[n-1].At
	}
	return at
}
