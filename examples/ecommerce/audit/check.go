package audit

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// way is every status's place on the way of an order; a step goes further, and
// cancelled is further than where it can come from.
var way = map[events.Status][]events.Status{
	"":                {events.Pending},
	events.Pending:    {events.Paid, events.Cancelled},
	events.Paid:       {events.Confirmed},
	events.Confirmed:  {events.Dispatched, events.Cancelled},
	events.Dispatched: {events.Shipped},
	events.Shipped:    {events.Delivered},
}

// auditor collects what is wrong.
type auditor struct {
	books
	now        time.Time
	violations []string
}

func (a *auditor) violation(format string, args ...any) {
	a.violations = append(a.violations, fmt.Sprintf(format, args...))
}

// check applies all rules.
func check(b books, now time.Time) Report {
	a := &auditor{books: b, now: now, violations: []string{}}
	r := Report{Accepted: len(b.accepted), Orders: map[events.Status]int{}, Stock: map[string]Stock{}}
	for _, id := range slices.Sorted(maps.Keys(b.accepted)) {
		a.checkOrder(id)
		r.Orders[b.accepted[id].status]++
		if !a.settled(id) {
			r.Unsettled++
		}
		r.Emails.Expected += len(b.orders[id].history)
	}
	a.checkStrangers()
	a.checkStock(r.Stock)
	a.sumUp(&r)
	r.Violations, r.Consistent = a.violations, len(a.violations) == 0
	return r
}

// checkOrder applies the rules about one order.
func (a *auditor) checkOrder(id string) {
	o := a.orders[id]
	a.checkHistory(id, o)
	a.checkMoney(id, o.status)
	a.checkGoods(id, o.status)
	a.checkParcel(id, o.status)
	a.checkFollower("the storefront shows", id, o, statuses(a.shown[id].history), a.shownBeforeKnown(id))
	a.checkFollower("e-mails tell", id, o, a.emails[id], false)
}

// checkHistory: an order only goes forward on its way.
func (a *auditor) checkHistory(id string, o orderRow) {
	var at events.Change
	for _, c := range o.history {
		if !slices.Contains(way[at.Status], c.Status) {
			a.violation("order %s: went from %q to %q", id, at.Status, c.Status)
		}
		if c.At.Before(at.At) {
			a.violation("order %s: was %s before it was %s", id, c.Status, at.Status)
		}
		at = c
	}
	if at.Status != o.status {
		a.violation("order %s: is %q but its history ends with %q", id, o.status, at.Status)
	}
}

// checkMoney: never more than one decision; one for every order that went on;
// a cancelled order holds no money, any other that was paid for holds its total.
func (a *auditor) checkMoney(id string, status events.Status) {
	count := map[string]int{}
	var held int64
	total := a.accepted[id].order.Total
	for _, e := range a.payments[id] {
		count[e.kind]++
		switch e.kind {
		case "confirmed":
			held += e.amount
		case "refunded":
			held -= e.amount
		}
		if e.amount != total {
			a.violation("order %s: payment %s of %d cents, the total is %d", id, e.kind, e.amount, total)
		}
	}
	decisions := count["confirmed"] + count["declined"]
	decided := status != "" && status != events.Pending
	if decisions > 1 || decided && decisions == 0 {
		a.violation("order %s: is %q and has %d payment decisions", id, status, decisions)
	}
	if count["refunded"] > count["confirmed"] {
		a.violation("order %s: %d refunds of %d payments", id, count["refunded"], count["confirmed"])
	}
	if status == events.Cancelled && held != 0 {
		a.violation("order %s: is cancelled and holds %d cents", id, held)
	}
	if after(status, events.Dispatched) && held != total {
		a.violation("order %s: is %s and holds %d cents, the total is %d", id, status, held, total)
	}
}

// checkGoods: all goods of an order left the warehouse, or none; a cancelled
// order holds none.
func (a *auditor) checkGoods(id string, status events.Status) {
	want := map[string]int{}
	for _, l := range a.accepted[id].order.Lines {
		want[l.SKU] += l.Quantity
	}
	sent := a.sent[id]
	switch {
	case len(sent) > 0 && !maps.Equal(sent, want):
		a.violation("order %s: the warehouse sent %v instead of %v", id, sent, want)
	case len(sent) > 0 && status == events.Cancelled:
		a.violation("order %s: is cancelled and holds goods %v", id, sent)
	case len(sent) == 0 && after(status, events.Dispatched):
		a.violation("order %s: is %s and the warehouse sent nothing", id, status)
	}
}

// checkParcel: one parcel for what was shipped, none for what was cancelled.
func (a *auditor) checkParcel(id string, status events.Status) {
	parcels := a.parcels[id]
	switch {
	case len(parcels) > 1:
		a.violation("order %s: has %d parcels", id, len(parcels))
	case len(parcels) == 0 && after(status, events.Shipped):
		a.violation("order %s: is %s and has no parcel", id, status)
	case len(parcels) == 1 && status == events.Cancelled:
		a.violation("order %s: is cancelled and has a parcel", id)
	case len(parcels) == 1 && status == events.Delivered && !parcels[0].delivered:
		a.violation("order %s: is delivered and its parcel is not", id)
	}
}

// after reports whether status is first, which is dispatched or later, or comes
// after it.
func after(status, first events.Status) bool {
	sent := []events.Status{events.Dispatched, events.Shipped, events.Delivered}
	return slices.Index(sent, status) >= slices.Index(sent, first)
}

// checkFollower: what the storefront shows and what e-mails were sent are the
// order's changes from the first on, without gaps or repeats. The last ones may
// be missing for a while.
func (a *auditor) checkFollower(who, id string, o orderRow, seen []events.Status, early bool) {
	changes := statuses(o.history)
	if len(seen) > len(changes) && !early || !isPrefix(seen, changes) {
		a.violation("order %s: %s %v, its changes are %v", id, who, seen, changes)
		return
	}
	if len(seen) < len(changes) {
		missing := o.history[len(seen)]
		if lag := a.now.Sub(missing.At); lag > Grace {
			a.violation("order %s: is %s since %v, %s only %v", id, missing.Status, lag.Round(time.Second), who, seen)
		}
	}
}

// shownBeforeKnown: the storefront shows an accepted order as pending before
// the order service knows it.
func (a *auditor) shownBeforeKnown(id string) bool {
	return len(a.orders[id].history) == 0 && len(a.shown[id].history) == 1
}

// isPrefix compares as far as both go.
func isPrefix(seen, changes []events.Status) bool {
	n := min(len(seen), len(changes))
	return slices.Equal(seen[:n], changes[:n])
}

func statuses(history []events.Change) []events.Status {
	var all []events.Status
	for _, c := range history {
		all = append(all, c.Status)
	}
	return all
}

// settled reports whether nothing more is going to happen to an order.
func (a *auditor) settled(id string) bool {
	o := a.orders[id]
	return o.status.Final() && a.shown[id].status == o.status && len(a.emails[id]) == len(o.history)
}

// checkStrangers: nobody knows an order that the storefront never accepted.
func (a *auditor) checkStrangers() {
	report(a, a.orders, "the order service")
	report(a, a.emails, "the e-mail service")
	report(a, a.parcels, "the shipping service")
	report(a, a.sent, "the warehouse")
	report(a, a.payments, "the payment service")
}

func report[V any](a *auditor, known map[string]V, who string) {
	for _, id := range slices.Sorted(maps.Keys(known)) {
		if _, ok := a.accepted[id]; !ok {
			a.violation("order %s: was never accepted but %s knows it", id, who)
		}
	}
}

// checkStock: what was sold and what is left make up what there was.
func (a *auditor) checkStock(sums map[string]Stock) {
	sold := map[string]int{}
	for _, goods := range a.sent {
		for sku, n := range goods {
			sold[sku] += n
		}
	}
	for sku, s := range a.stock {
		sums[sku] = Stock{Initial: s.initial, Sold: sold[sku], Stock: s.quantity}
	}
	for _, sku := range slices.Sorted(maps.Keys(sums)) {
		s := sums[sku]
		if s.Sold+s.Stock != s.Initial {
			a.violation("product %s: %d sold and %d in stock, initially there were %d", sku, s.Sold, s.Stock, s.Initial)
		}
		if s.Stock < 0 {
			a.violation("product %s: stock is %d", sku, s.Stock)
		}
	}
	for _, sku := range slices.Sorted(maps.Keys(sold)) {
		if _, ok := a.stock[sku]; !ok {
			a.violation("product %s: %d were sold, the warehouse never had it", sku, sold[sku])
		}
	}
}

func (a *auditor) sumUp(r *Report) {
	for _, entries := range a.payments {
		for _, e := range entries {
			switch e.kind {
			case "confirmed":
				r.Payments.Confirmed++
				r.Payments.Held += e.amount
			case "declined":
				r.Payments.Declined++
			case "refunded":
				r.Payments.Refunded++
				r.Payments.Held -= e.amount
			}
		}
	}
	for _, sent := range a.emails {
		r.Emails.Sent += len(sent)
	}
}
