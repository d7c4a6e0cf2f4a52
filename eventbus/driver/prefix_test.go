package driver_test

import (
	"context"
	"net/url"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/membus"
)

func TestPrefixKeepsEnvironmentsOfOneBrokerApart(t *testing.T) {
	shared, err := membus.New(membus.Config{})
	require.NoError(t, err)
	defer shared.Close()
	driver.Register("test-prefix", func(_ context.Context, u *url.URL, _ driver.Options) (driver.Broker, error) {
		return shared, driver.NewParams(u).Err()
	})
	got := make(chan string, 10)
	for _, prefix := range []string{"blue.", "green."} {
		b, err := driver.Open(t.Context(), "test-prefix:?prefix="+prefix, driver.Options{})
		require.NoError(t, err)
		require.NoError(t, b.Publish("orders", message.NewMessage("1", nil)))
		_, err = b.Subscribe(t.Context(), driver.Subscription{Topic: "orders", Group: "g", Concurrency: 1, Handle: func(d *driver.Delivery) driver.Result {
			got <- d.Topic
			return driver.Result{}
		}})
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	c, err := shared.Subscribe(ctx, driver.Subscription{Topic: "blue.orders", Group: "blue.g", Concurrency: 1, Handle: func(d *driver.Delivery) driver.Result {
		got <- d.Topic
		cancel()
		return driver.Result{}
	}})
	require.NoError(t, err)
	require.NoError(t, c.Run(ctx))
	require.Len(t, got, 1, "the names on the broker are the long ones, and the other environment's event is not here")
	require.Equal(t, "blue.orders", <-got)

	for _, bad := range []string{"?prefix=a&prefix=b", "?prefix=", "?prefix=a/b"} {
		_, err := driver.Open(t.Context(), "test-prefix:"+bad, driver.Options{})
		require.ErrorContains(t, err, "want one prefix of topic names")
	}
}
