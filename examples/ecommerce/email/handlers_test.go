package email

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

func TestEveryStatusHasItsWords(t *testing.T) {
	seen := map[string]bool{}
	for _, status := range []events.Status{events.Pending, events.Paid, events.Confirmed, events.Dispatched, events.Shipped, events.Delivered, events.Cancelled} {
		m := compose(events.OrderStatus{Order: events.Order{ID: "o-1", CustomerID: "Ada", Email: "ada@example.com"}, Status: status, Reason: "out of stock"})
		require.Equal(t, "ada@example.com", m.To)
		require.Equal(t, "Your order o-1 is "+string(status), m.Subject)
		require.True(t, strings.HasPrefix(m.Body, "Dear Ada, your ") || strings.HasPrefix(m.Body, "Dear Ada, we "), m.Body)
		require.False(t, seen[m.Body], "the words for %s are those of another status", status)
		seen[m.Body] = true
	}
}
