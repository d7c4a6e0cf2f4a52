package sqlbus

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func TestPublishToAReadOnlyDatabase(t *testing.T) {
	path := tempPath(t)
	b := openAt(t, path, Config{})
	pragma(t, b, "query_only(1)")
	err := b.Publish("t", msg("k", 1))
	require.ErrorContains(t, err, path+": the file can't be written to")
	require.False(t, driver.IsPermanent(err))
	pragma(t, b, "query_only(0)")
	require.NoError(t, b.Publish("t", msg("k", 2)))
	require.Equal(t, 1, count(t, b, "SELECT count(*) FROM millrace_events"))
}

func TestPublishToAFullDisk(t *testing.T) {
	path := tempPath(t)
	b := openAt(t, path, Config{})
	pragma(t, b, "max_page_count(40)")
	published := 0
	var err error
	for err == nil {
		if err = b.Publish("t", msg("k", strings.Repeat("x", 4000))); err == nil {
			published++
		}
		require.Less(t, published, 100)
	}
	require.ErrorContains(t, err, path+": the disk or the database is full")
	require.ErrorContains(t, b.Publish("t", msg("k", strings.Repeat("x", 4000))), "full")
	require.Equal(t, published, count(t, b, "SELECT count(*) FROM millrace_events"))
	pragma(t, b, "max_page_count(1000000)")
	require.NoError(t, b.Publish("t", msg("k", strings.Repeat("x", 4000))))
}

// A consumer whose progress, redeliveries and lease can't be stored goes on
// when they can again.
func TestConsumerOutlivesAFileThatCannotBeWritten(t *testing.T) {
	path := tempPath(t)
	b, publisher := openAt(t, path, Config{Lease: time.Second}), openAt(t, path, Config{})
	got := make(chan *driver.Delivery, 100)
	start(t, b, driver.Subscription{Concurrency: 2, Handle: func(d *driver.Delivery) driver.Result {
		got <- d
		return driver.Result{Redeliver: d.Key == "delayed" && d.Attempt == 1, Delay: 10 * time.Millisecond}
	}})
	require.NoError(t, publisher.Publish("t", msg("k", 1)))
	receive(t, got)
	eventually(t, "progress", func() bool { return count(t, b, "SELECT max(cursor) FROM millrace_groups") == 1 })

	pragma(t, b, "query_only(1)")
	require.NoError(t, publisher.Publish("t", msg("k", 2), msg("delayed", 3)))
	receive(t, got)
	receive(t, got)
	require.Equal(t, 2, receive(t, got).Attempt, "a redelivery that can't be stored is kept in memory")
	silent(t, got, 1500*time.Millisecond) // longer than the lease
	require.Equal(t, 1, count(t, b, "SELECT max(cursor) FROM millrace_groups"))
	require.NoError(t, publisher.Publish("t", msg("k", 4)))
	silent(t, got, 100*time.Millisecond) // without a lease nothing is started

	pragma(t, b, "query_only(0)")
	require.Equal(t, "4", text(receive(t, got)))
	eventually(t, "progress", func() bool { return count(t, b, "SELECT max(cursor) FROM millrace_groups") == 4 })
	require.NoError(t, publisher.Publish("t", msg("k", 5)))
	require.Equal(t, "5", text(receive(t, got)))
	silent(t, got, 50*time.Millisecond)
}

// A member that was thought dead finds that its partitions are gone, and must
// not touch the progress of the new owner.
func TestLostLeaseIsFencedAndRejoined(t *testing.T) {
	path := tempPath(t)
	b, other := openAt(t, path, Config{Lease: time.Second}), openAt(t, path, Config{Lease: time.Second})
	entered, proceed := make(chan struct{}, 10), make(chan struct{})
	start(t, b, driver.Subscription{Handle: func(*driver.Delivery) driver.Result {
		entered <- struct{}{}
		<-proceed
		return driver.Result{}
	}})
	require.NoError(t, other.Publish("t", msg("k", 1), msg("k", 2)))
	receive(t, entered)
	pragma(t, b, "query_only(1)") // it can't renew

	got := make(chan *driver.Delivery, 10)
	stop := start(t, other, driver.Subscription{Handle: func(d *driver.Delivery) driver.Result {
		got <- d
		return driver.Result{Redeliver: text(d) == "2", Delay: time.Hour, Hold: true}
	}})
	require.Equal(t, "1", text(receive(t, got)))
	require.Equal(t, "2", text(receive(t, got)))
	eventually(t, "the new owner's progress", func() bool { return count(t, b, "SELECT max(cursor) FROM millrace_groups") == 1 })
	pragma(t, b, "query_only(0)")
	close(proceed)
	eventually(t, "it is a member again", func() bool { return count(t, b, "SELECT count(*) FROM millrace_members") == 2 })
	stop()
	receive(t, entered) // event 2, which the other gave up
	eventually(t, "all is done", func() bool { return count(t, b, "SELECT max(cursor) FROM millrace_groups") == 2 })
}

func TestLeavingAFileThatCannotBeWrittenEndsInTime(t *testing.T) {
	b := openAt(t, tempPath(t), Config{Lease: time.Second})
	got := make(chan *driver.Delivery, 1)
	stop := start(t, b, driver.Subscription{Handle: into(got)})
	require.NoError(t, b.Publish("t", msg("k", 1)))
	receive(t, got)
	pragma(t, b, "query_only(1)")
	stop()
	pragma(t, b, "query_only(0)")
	start(t, b, driver.Subscription{Handle: into(got)})
	require.NoError(t, b.Publish("t", msg("k", 2)))
	for text(receive(t, got)) != "2" {
	}
}
