package sqlbus

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func TestRetentionOnServers(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b := openOn(t, url, Config{Retention: time.Second})
		openOn(t, url, Config{Retention: time.Second}) // which sweeps as well
		got := make(chan *driver.Delivery, 1000)
		start(t, b, driver.Subscription{Handle: into(got)})
		_, err := b.Subscribe(t.Context(), driver.Subscription{Topic: "kept", Group: "absent", Concurrency: 1, Handle: into(got)})
		require.NoError(t, err)
		require.NoError(t, b.Publish("t", batch(500)...))
		require.NoError(t, b.Publish("kept", batch(5)...))
		require.NoError(t, b.Publish("nobody", batch(5)...))
		remaining := func(topic string) int {
			return count(t, b, "SELECT count(*) FROM millrace_events WHERE topic = ?", topic)
		}
		require.Equal(t, 500, remaining("t"))
		eventually(t, "what is consumed, or has no group, goes", func() bool { return remaining("t") == 0 && remaining("nobody") == 0 })
		require.Equal(t, 5, remaining("kept"))
		require.NoError(t, b.RemoveGroup(t.Context(), "kept", "absent"))
		eventually(t, "without the group it goes", func() bool { return remaining("kept") == 0 })
		require.NoError(t, b.Publish("t", msg("k", "after")))
		for text(receive(t, got)) != "after" {
		}
	})
}

// Members of another process are refused their removal, and so is Seek.
func TestGroupsWithMembersElsewhereAreBusy(t *testing.T) {
	onServers(t, func(t *testing.T, url string) {
		b, other := openOn(t, url, Config{}), openOn(t, url, Config{})
		got := make(chan *driver.Delivery, 10)
		stop := start(t, b, driver.Subscription{Handle: into(got)})
		require.NoError(t, other.Publish("t", msg("k", 1)))
		receive(t, got)
		require.ErrorIs(t, other.RemoveGroup(t.Context(), "t", "g"), driver.ErrBusy)
		require.ErrorIs(t, other.Seek(t.Context(), "t", "g", time.Time{}), driver.ErrBusy)
		stop()
		require.NoError(t, other.Seek(t.Context(), "t", "g", time.Time{}))
		start(t, other, driver.Subscription{Handle: into(got)})
		require.Equal(t, "1", text(receive(t, got)))
	})
}
