package audit

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func history(statuses ...events.Status) []events.Change {
	var h []events.Change
	for i, s := range statuses {
		h = append(h, events.Change{Status: s, At: start.Add(time.Duration(i) * time.Second)})
	}
	return h
}

// goodBooks have one delivered, one refunded, one declined and one new order.
func goodBooks() books {
	b := books{
		shown: map[string]orderRow{}, orders: map[string]orderRow{}, accepted: map[string]orderRow{},
		emails:   map[string][]events.Status{},
		parcels:  map[string][]parcel{"delivered": {{delivered: true}}},
		stock:    map[string]stock{"tin": {initial: 5, quantity: 3}, "mill": {initial: 1, quantity: 1}},
		sent:     map[string]map[string]int{"delivered": {"tin": 2}},
		payments: map[string][]entry{"delivered": {{"confirmed", 100}}, "refunded": {{"confirmed", 100}, {"refunded", 100}}, "declined": {{"declined", 100}}},
	}
	for id, h := range map[string][]events.Change{
		"delivered": history(events.Pending, events.Paid, events.Confirmed, events.Dispatched, events.Shipped, events.Delivered),
		"refunded":  history(events.Pending, events.Paid, events.Confirmed, events.Cancelled),
		"declined":  history(events.Pending, events.Cancelled),
		"new":       history(events.Pending),
	} {
		o := orderRow{
			order:   events.Order{ID: id, Lines: []events.Line{{SKU: "tin", Quantity: 1}, {SKU: "tin", Quantity: 1}}, Total: 100},
			status:  h[len(h)-1].Status,
			history: h,
		}
		b.shown[id], b.accepted[id] = o, o
		if id != "new" {
			b.orders[id], b.emails[id] = o, statuses(h)
		}
	}
	return b
}

func (b *books) setStatus(id string, h ...events.Status) {
	o := b.orders[id]
	o.history = history(h...)
	o.status = h[len(h)-1]
	b.orders[id] = o
}

func TestGoodBooksAreConsistent(t *testing.T) {
	r := check(goodBooks(), start.Add(time.Hour))
	require.Empty(t, r.Violations)
	require.True(t, r.Consistent)
	require.Equal(t, 4, r.Accepted)
	require.Equal(t, 1, r.Unsettled)
	require.Equal(t, map[events.Status]int{events.Delivered: 1, events.Cancelled: 2, events.Pending: 1}, r.Orders)
	require.Equal(t, Payments{Confirmed: 2, Declined: 1, Refunded: 1, Held: 100}, r.Payments)
	require.Equal(t, Stock{Initial: 5, Sold: 2, Stock: 3}, r.Stock["tin"])
	require.Equal(t, Emails{Sent: 12, Expected: 12}, r.Emails)
}

func TestLagIsToleratedForAWhile(t *testing.T) {
	b := goodBooks()
	b.emails["delivered"] = b.emails["delivered"][:5]
	shown := b.shown["declined"]
	shown.status, shown.history = events.Pending, shown.history[:1]
	b.shown["declined"] = shown
	r := check(b, start.Add(10*time.Second))
	require.Empty(t, r.Violations)
	require.Equal(t, 3, r.Unsettled)
	r = check(b, start.Add(10*time.Second+Grace))
	require.Equal(t, []string{
		"order declined: is cancelled since 1m9s, the storefront shows only [pending]",
		"order delivered: is delivered since 1m5s, e-mails tell only [pending paid confirmed dispatched shipped]",
	}, r.Violations)
}

func TestOrderAcceptedDuringTheAuditIsNoViolation(t *testing.T) {
	b := goodBooks()
	delete(b.shown, "new")
	b.payments["new"] = []entry{{"confirmed", 100}} // read later than the order service
	require.Empty(t, check(b, start).Violations)
}

func TestEveryKindOfMistakeIsFound(t *testing.T) {
	for _, tt := range []struct {
		name    string
		mistake func(b *books)
		want    string
	}{
		{"two decisions", func(b *books) { b.payments["delivered"] = append(b.payments["delivered"], entry{"confirmed", 100}) },
			`order delivered: is "delivered" and has 2 payment decisions`},
		{"no decision", func(b *books) { delete(b.payments, "declined") },
			`order declined: is "cancelled" and has 0 payment decisions`},
		{"wrong amount", func(b *books) { b.payments["delivered"] = []entry{{"confirmed", 99}} },
			`order delivered: payment confirmed of 99 cents, the total is 100`},
		{"no refund", func(b *books) { b.payments["refunded"] = b.payments["refunded"][:1] },
			`order refunded: is cancelled and holds 100 cents`},
		{"two refunds", func(b *books) { b.payments["refunded"] = append(b.payments["refunded"], entry{"refunded", 100}) },
			`order refunded: 2 refunds of 1 payments`},
		{"delivered for free", func(b *books) { b.payments["delivered"] = []entry{{"declined", 100}} },
			`order delivered: is delivered and holds 0 cents, the total is 100`},
		{"goods twice", func(b *books) { b.sent["delivered"]["tin"] = 4 },
			`order delivered: the warehouse sent map[tin:4] instead of map[tin:2]`},
		{"goods never", func(b *books) { delete(b.sent, "delivered") },
			`order delivered: is delivered and the warehouse sent nothing`},
		{"goods of a cancelled order", func(b *books) { b.sent["declined"] = map[string]int{"tin": 2} },
			`order declined: is cancelled and holds goods map[tin:2]`},
		{"stock gone", func(b *books) { b.stock["tin"] = stock{5, 2} },
			`product tin: 2 sold and 2 in stock, initially there were 5`},
		{"stock negative", func(b *books) { b.stock["mill"] = stock{-1, -1} },
			`product mill: stock is -1`},
		{"unknown product", func(b *books) { b.sent["new"] = map[string]int{"tin": 2, "ghost": 1} },
			`product ghost: 1 were sold, the warehouse never had it`},
		{"two parcels", func(b *books) { b.parcels["delivered"] = append(b.parcels["delivered"], parcel{true}) },
			`order delivered: has 2 parcels`},
		{"no parcel", func(b *books) { delete(b.parcels, "delivered") },
			`order delivered: is delivered and has no parcel`},
		{"parcel on its way", func(b *books) { b.parcels["delivered"] = []parcel{{false}} },
			`order delivered: is delivered and its parcel is not`},
		{"parcel of a cancelled order", func(b *books) { b.parcels["declined"] = []parcel{{false}} },
			`order declined: is cancelled and has a parcel`},
		{"e-mail twice", func(b *books) { b.emails["declined"] = append(b.emails["declined"], events.Cancelled) },
			`order declined: e-mails tell [pending cancelled cancelled], its changes are [pending cancelled]`},
		{"e-mail left out", func(b *books) { b.emails["declined"] = b.emails["declined"][1:] },
			`order declined: e-mails tell [cancelled], its changes are [pending cancelled]`},
		{"e-mail too early", func(b *books) { b.emails["new"] = []events.Status{events.Pending} },
			`order new: e-mails tell [pending], its changes are []`},
		{"storefront ahead", func(b *books) { b.shown["new"] = b.shown["declined"] },
			`order new: the storefront shows [pending cancelled], its changes are []`},
		{"step left out", func(b *books) { b.setStatus("declined", events.Pending, events.Confirmed, events.Cancelled) },
			`order declined: went from "pending" to "confirmed"`},
		{"status without history", func(b *books) {
			o := b.orders["declined"]
			o.status = events.Paid
			b.orders["declined"] = o
		}, `order declined: is "paid" but its history ends with "cancelled"`},
		{"clock backwards", func(b *books) { b.orders["declined"].history[1].At = start.Add(-time.Second) },
			`order declined: was cancelled before it was pending`},
		{"stranger", func(b *books) { delete(b.accepted, "declined") },
			`order declined: was never accepted but the payment service knows it`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := goodBooks()
			tt.mistake(&b)
			r := check(b, start.Add(10*time.Second))
			require.False(t, r.Consistent)
			require.Contains(t, r.Violations, tt.want)
		})
	}
}
