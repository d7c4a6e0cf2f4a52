package sqlbus

import (
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// age makes everything that was published older.
func age(t *testing.T, b *Broker, by time.Duration) {
	t.Helper()
	require.NoError(t, fileOf(b).writer.do(t.Context(), 0, func(s *session) error {
		_, err := s.exec("UPDATE millrace_events SET published_at = published_at - ?", by.Microseconds())
		return err
	}))
}

func events(t *testing.T, b *Broker) int {
	t.Helper()
	return count(t, b, "SELECT count(*) FROM millrace_events")
}

func TestRetentionKeepsWhatAGroupHasNotConsumed(t *testing.T) {
	b := openAt(t, tempPath(t), Config{Retention: time.Hour})
	_, err := b.Subscribe(t.Context(), driver.Subscription{Topic: "t", Group: "absent", Concurrency: 1, Handle: into(nil)})
	require.NoError(t, err)
	got := make(chan *driver.Delivery, 10)
	stop := start(t, b, driver.Subscription{Handle: into(got)})
	for i := range 3 {
		require.NoError(t, b.Publish("t", msg("k", i)))
		receive(t, got)
	}
	stop()
	age(t, b, 2*time.Hour)
	require.NoError(t, b.sweep())
	require.Equal(t, 3, events(t, b))

	require.NoError(t, b.RemoveGroup(t.Context(), "t", "absent"))
	require.NoError(t, b.Publish("t", msg("k", "young")))
	require.NoError(t, b.sweep())
	require.Equal(t, 1, events(t, b))
	fresh := make(chan *driver.Delivery, 10)
	start(t, b, driver.Subscription{Group: "fresh", Handle: into(fresh)})
	require.Equal(t, "young", text(receive(t, fresh)))
}

func TestRetentionKeepsWhatWaitsForRedelivery(t *testing.T) {
	b := openAt(t, tempPath(t), Config{Retention: time.Hour})
	got := make(chan *driver.Delivery, 10)
	stop := start(t, b, driver.Subscription{Handle: func(d *driver.Delivery) driver.Result {
		got <- d
		return driver.Result{Redeliver: text(d) == "1", Delay: time.Hour}
	}})
	require.NoError(t, b.Publish("t", msg("k", 1), msg("k", 2)))
	receive(t, got)
	receive(t, got)
	stop()
	age(t, b, 2*time.Hour)
	require.NoError(t, b.sweep())
	require.Equal(t, 1, count(t, b, "SELECT min(position) FROM millrace_events WHERE (SELECT count(*) FROM millrace_events) = 1"))
}

func TestRetentionRemovesInSteps(t *testing.T) {
	b := openAt(t, tempPath(t), Config{Retention: time.Hour})
	var all []*message.Message
	for i := range 2*retentionStep + 10 {
		all = append(all, msg("k", i))
	}
	require.NoError(t, b.Publish("t", all...))
	require.NoError(t, b.Publish("u", msg("k", "other topic")))
	require.NoError(t, b.sweep())
	require.Equal(t, 2*retentionStep+11, events(t, b))
	age(t, b, 2*time.Hour)
	require.NoError(t, b.Publish("t", msg("k", "young")))
	require.NoError(t, b.sweep())
	require.Equal(t, 1, events(t, b), "a topic without groups is kept for the retention only")
	require.NoError(t, b.Publish("t", msg("k", "next")))
	require.Equal(t, 2*retentionStep+13, count(t, b, "SELECT max(position) FROM millrace_events"), "positions are never given twice")
}

func TestRetentionRunsByItself(t *testing.T) {
	b := openAt(t, tempPath(t), Config{Retention: time.Second})
	require.NoError(t, b.Publish("t", msg("k", 1)))
	eventually(t, "it is removed", func() bool { return events(t, b) == 0 })
}

func TestRemoveGroupRefusesWhileItHasMembers(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	got := make(chan *driver.Delivery, 10)
	stop := start(t, b, driver.Subscription{Handle: into(got)})
	require.NoError(t, b.Publish("t", msg("k", 1)))
	receive(t, got)
	require.ErrorContains(t, b.RemoveGroup(t.Context(), "t", "g"), "the group has running members: 1")
	stop()
	require.NoError(t, b.RemoveGroup(t.Context(), "t", "g"))
	require.NoError(t, b.RemoveGroup(t.Context(), "t", "never was"))
	for _, table := range []string{"groups", "members", "exceptions"} {
		require.Zero(t, count(t, b, fmt.Sprintf("SELECT count(*) FROM millrace_%s", table)), table)
	}
	start(t, b, driver.Subscription{Handle: into(got)})
	require.Equal(t, "1", text(receive(t, got)), "a removed group is a new one when it comes back")
}
