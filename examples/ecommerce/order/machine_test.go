package order

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

var (
	toDelivered = []fact{placed, paymentConfirmed, dispatched, shipped, delivered}
	toRefunded  = []fact{placed, paymentConfirmed, paymentRefunded}
	toDeclined  = []fact{placed, paymentDeclined}
)

// TestFactsInAnyOrderAndRepeatedGiveTheSameHistory tries every order in which
// the facts of an order can arrive, each fact twice.
func TestFactsInAnyOrderAndRepeatedGiveTheSameHistory(t *testing.T) {
	for _, tt := range []struct {
		name  string
		facts []fact
		want  []events.Status
	}{
		{"delivered", toDelivered, []events.Status{events.Pending, events.Paid, events.Confirmed, events.Dispatched, events.Shipped, events.Delivered}},
		{"refunded", toRefunded, []events.Status{events.Pending, events.Paid, events.Confirmed, events.Cancelled}},
		{"declined", toDeclined, []events.Status{events.Pending, events.Cancelled}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, facts := range permutations(tt.facts) {
				o := &order{facts: map[fact]detail{}}
				var changes []events.Change
				for _, f := range append(facts, facts...) {
					changes = append(changes, o.learn(f, happened(tt.facts, f))...)
				}
				require.Equal(t, tt.want, statuses(o.history), "facts arrived as %v", facts)
				require.Equal(t, o.history, changes, "every change is reported once, facts arrived as %v", facts)
				require.Equal(t, tt.want[len(tt.want)-1], o.status)
				for i := 1; i < len(o.history); i++ {
					require.False(t, o.history[i].At.Before(o.history[i-1].At), "times go forward, facts arrived as %v", facts)
				}
			}
		})
	}
}

func TestCancellationKeepsItsReason(t *testing.T) {
	o := &order{facts: map[fact]detail{}}
	o.learn(placed, detail{})
	o.learn(paymentDeclined, detail{Reason: "payment declined"})
	require.Equal(t, events.Cancelled, o.status)
	require.Equal(t, "payment declined", o.reason)
}

func TestFinalOrderNeverChangesAgain(t *testing.T) {
	all := []fact{placed, paymentConfirmed, paymentDeclined, paymentRefunded, dispatched, shipped, delivered}
	for _, way := range [][]fact{toDelivered, toRefunded, toDeclined} {
		o := &order{facts: map[fact]detail{}}
		for _, f := range way {
			o.learn(f, detail{})
		}
		end := o.status
		require.True(t, end.Final())
		for _, f := range all {
			require.Empty(t, o.learn(f, detail{}), "a %s order learned %q", end, f)
		}
		require.Equal(t, end, o.status)
	}
}

// happened gives facts times that depend on the fact, not on its arrival.
func happened(way []fact, f fact) detail {
	for i, g := range way {
		if g == f {
			return detail{At: time.Unix(int64(i), 0)}
		}
	}
	return detail{}
}

func permutations(facts []fact) [][]fact {
	if len(facts) == 0 {
		return [][]fact{nil}
	}
	var all [][]fact
	for i, first := range facts {
		rest := append(append([]fact{}, facts[:i]...), facts[i+1:]...)
		for _, p := range permutations(rest) {
			all = append(all, append([]fact{first}, p...))
		}
	}
	return all
}

func statuses(history []events.Change) []events.Status {
	var all []events.Status
	for _, c := range history {
		all = append(all, c.Status)
	}
	return all
}
