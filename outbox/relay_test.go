package outbox_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

func TestBatchesAreGroupedByTopicAndKeysKeepOrder(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		var batch []*message.Message
		for i := range 3000 {
			batch = append(batch, msg(strconv.Itoa(i), "k"+strconv.Itoa(i%50)))
		}
		enqueue(t, box, "a", batch[:1500]...)
		enqueue(t, box, "b", batch[1500:]...)
		stop := start(t, box.Relay(to))
		got := to.awaitCount(t, 3000)
		require.NoError(t, stop())
		require.Len(t, to.all(), 3000)
		require.Less(t, to.calls, 300, "events are published in batches")
		last := map[string]int{}
		for _, p := range got {
			n, err := strconv.Atoi(p.id)
			require.NoError(t, err)
			at, seen := last[p.topic+p.key]
			require.True(t, !seen || at < n, "event %d of key %s came after %d", n, p.key, at)
			last[p.topic+p.key] = n
		}
	})
}

func TestDueTimes(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		stop := start(t, box.Relay(to))
		at := time.Now().Add(400 * time.Millisecond)
		late, past, later := msg("late", "k"), msg("past", "k"), msg("later", "k")
		driver.SetDue(late, at)
		driver.SetDue(past, time.Now().Add(-time.Hour))
		driver.SetDue(later, at.Add(100*time.Millisecond))
		enqueue(t, box, "orders", later, late, msg("now", "k"), past)
		require.Contains(t, late.Metadata, driver.MetadataDue, "the caller's message must not be changed")
		first := to.awaitCount(t, 2)
		require.True(t, time.Now().Before(at))
		require.Equal(t, []string{"now", "past"}, []string{first[0].id, first[1].id})
		got := to.awaitCount(t, 4)
		require.False(t, time.Now().Before(at.Add(100*time.Millisecond)), "nothing may come early")
		require.Equal(t, []string{"now", "past", "late", "later"}, to.ids())
		for _, p := range got {
			require.NotContains(t, p.metadata, driver.MetadataDue, "brokers without due times refuse it")
		}
		require.NoError(t, stop())
		require.Zero(t, count(t, db, "SELECT count(*) FROM millrace_outbox_scheduled"))
	})
}

func TestDueTimesSurviveARestartAndThousandsAreMovedInSteps(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		var batch []*message.Message
		at := time.Now().Add(300 * time.Millisecond)
		for i := range 1700 {
			m := msg(strconv.Itoa(i), "k"+strconv.Itoa(i%7))
			driver.SetDue(m, at)
			batch = append(batch, m)
		}
		enqueue(t, box, "orders", batch...)
		require.NoError(t, start(t, box.Relay(newSink()))(), "a relay that stops at once")
		to := newSink()
		stop := start(t, box.Relay(to))
		got := to.awaitCount(t, 1700)
		require.NoError(t, stop())
		last := map[string]int{}
		for _, p := range got {
			n, _ := strconv.Atoi(p.id)
			require.GreaterOrEqual(t, n, last[p.key], "equal due times keep the order of writing")
			last[p.key] = n
		}
	})
}

func TestStopDrainsWhatIsInTheLog(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		ctx, cancel := context.WithCancel(t.Context())
		to.setRefuse(func(string, []*message.Message) error { cancel(); return nil })
		var batch []*message.Message
		for i := range 2000 {
			batch = append(batch, msg(strconv.Itoa(i), "k"+strconv.Itoa(i%20)))
		}
		enqueue(t, box, "orders", batch...)
		require.NoError(t, box.Relay(to).Run(ctx))
		require.Len(t, to.all(), 2000)
		s, err := box.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, s.Pending)
	})
}

func TestStopIsBoundedWhenTheBrokerHangs(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		entered := make(chan struct{})
		to.setRefuse(func(_ string, m []*message.Message) error {
			close(entered)
			<-m[0].Context().Done()
			return m[0].Context().Err()
		})
		stop := start(t, box.Relay(to, outbox.DrainTimeout(50*time.Millisecond), outbox.Workers(1)))
		enqueue(t, box, "orders", msg("1", "k"))
		<-entered
		began := time.Now()
		require.NoError(t, stop())
		require.Less(t, time.Since(began), 3*time.Second)
		s, err := box.Stats(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, s.Pending)
	})
}

func TestPublisherThatNeverReturnsIsReported(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		entered, release := make(chan struct{}), make(chan struct{})
		to.setRefuse(func(string, []*message.Message) error { close(entered); <-release; return nil })
		stop := start(t, box.Relay(to, outbox.DrainTimeout(0), outbox.Workers(1)))
		enqueue(t, box, "orders", msg("1", "k"))
		<-entered
		require.ErrorContains(t, stop(), "did not return from Publish")
		require.NotZero(t, count(t, db, "SELECT lease_until FROM millrace_outbox_relay"), "nobody else may publish beside it")
		close(release)
	})
}

func TestRetentionKeepsThenDeletesInSteps(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		stop := start(t, box.Relay(to, outbox.Retention(time.Hour)))
		var batch []*message.Message
		for i := range 1300 {
			batch = append(batch, msg(strconv.Itoa(i), ""))
		}
		enqueue(t, box, "orders", batch...)
		to.awaitCount(t, 1300)
		require.NoError(t, stop())
		require.Equal(t, 1300, count(t, db, "SELECT count(*) FROM millrace_outbox"))
		s, err := box.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, s.Pending)

		stop = start(t, box.Relay(to, outbox.Retention(time.Hour)))
		enqueue(t, box, "orders", msg("new", ""))
		to.awaitCount(t, 1301)
		require.NotContains(t, to.ids()[1300:], "0", "kept rows are not published again")
		_, err = db.Exec(db.Dialect.Rebind("UPDATE millrace_outbox SET created_at = created_at - 7200000 WHERE id <> ?"), []byte("new"))
		require.NoError(t, err)
		require.NoError(t, stop())
		stop = start(t, box.Relay(to, outbox.Retention(time.Hour)))
		eventually(t, "old rows are deleted", func() bool { return count(t, db, "SELECT count(*) FROM millrace_outbox") == 1 })
		require.NoError(t, stop())

		stop = start(t, box.Relay(to))
		eventually(t, "without retention nothing is kept", func() bool { return count(t, db, "SELECT count(*) FROM millrace_outbox") == 0 })
		require.NoError(t, stop())
	})
}
