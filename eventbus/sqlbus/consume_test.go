package sqlbus

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func TestCrossProcessPublishIsNoticed(t *testing.T) {
	usual := idleWait
	t.Cleanup(func() { idleWait = usual })
	idleWait = time.Hour // nothing but the watcher can wake the reader
	path := tempPath(t)
	reader, writer := openAt(t, path, Config{}), openAt(t, path, Config{})
	got := make(chan *driver.Delivery, 1)
	start(t, reader, driver.Subscription{Handle: into(got)})
	require.NoError(t, reader.Publish("t", msg("k", "own")))
	receive(t, got)
	require.NoError(t, writer.Publish("t", msg("k", "other")))
	receive(t, got)
}

func TestNackDeliversAgain(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	got := make(chan *driver.Delivery, 10)
	start(t, b, driver.Subscription{Handle: func(d *driver.Delivery) driver.Result {
		d.Message.Payload = append([]byte("x"), d.Message.Payload...) // must not be seen again
		got <- d
		return driver.Result{Redeliver: d.Attempt < 3}
	}})
	require.NoError(t, b.Publish("t", msg("k", "payload")))
	for attempt := 1; attempt <= 3; attempt++ {
		d := receive(t, got)
		require.Equal(t, attempt, d.Attempt)
		require.Equal(t, "xpayload", text(d))
		require.EqualValues(t, 1, d.Position.Offset)
	}
	silent(t, got, 50*time.Millisecond)
}

func TestHoldKeepsTheKeyWaiting(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	got := make(chan string, 10)
	start(t, b, driver.Subscription{Concurrency: 4, Handle: func(d *driver.Delivery) driver.Result {
		got <- text(d)
		return driver.Result{Redeliver: text(d) == "1" && d.Attempt == 1, Delay: 100 * time.Millisecond, Hold: true}
	}})
	require.NoError(t, b.Publish("t", msg("a", 1), msg("a", 2), msg("b", 3)))
	seen := []string{receive(t, got), receive(t, got), receive(t, got), receive(t, got)}
	require.Equal(t, []string{"1", "2"}, seen[2:])
	require.ElementsMatch(t, []string{"1", "3"}, seen[:2])
}

func TestDelayedRedeliveryLetsOthersOvertake(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	got := make(chan *driver.Delivery, 10)
	var first atomic.Int64
	start(t, b, driver.Subscription{Handle: func(d *driver.Delivery) driver.Result {
		got <- d
		if text(d) == "1" && d.Attempt < 3 {
			first.Store(time.Now().UnixNano())
			return driver.Result{Redeliver: true, Delay: 150 * time.Millisecond}
		}
		return driver.Result{}
	}})
	require.NoError(t, b.Publish("t", msg("a", 1), msg("a", 2)))
	require.Equal(t, "1", text(receive(t, got)))
	require.Equal(t, "2", text(receive(t, got)))
	for attempt := 2; attempt <= 3; attempt++ {
		nacked := first.Load()
		d := receive(t, got)
		require.Equal(t, "1", text(d))
		require.Equal(t, attempt, d.Attempt)
		require.EqualValues(t, 1, d.Position.Offset)
		require.GreaterOrEqual(t, time.Now().UnixNano()-nacked, int64(150*time.Millisecond))
	}
	eventually(t, "its row is removed", func() bool { return count(t, b, "SELECT count(*) FROM millrace_exceptions") == 0 })
	eventually(t, "progress is stored", func() bool { return count(t, b, "SELECT max(cursor) FROM millrace_groups") == 2 })
	silent(t, got, 50*time.Millisecond)
}

func TestDelayedRedeliverySurvivesReopenForItsGroupOnly(t *testing.T) {
	path := tempPath(t)
	b := openAt(t, path, Config{})
	got, other := make(chan *driver.Delivery, 10), make(chan *driver.Delivery, 10)
	stop := start(t, b, driver.Subscription{Handle: func(d *driver.Delivery) driver.Result {
		got <- d
		return driver.Result{Redeliver: true, Delay: 300 * time.Millisecond}
	}})
	stopOther := start(t, b, driver.Subscription{Group: "other", Handle: into(other)})
	require.NoError(t, b.Publish("t", msg("k", 1)))
	receive(t, got)
	receive(t, other)
	stop()
	stopOther()
	require.NoError(t, b.Close())

	b = openAt(t, path, Config{})
	start(t, b, driver.Subscription{Handle: into(got)})
	start(t, b, driver.Subscription{Group: "other", Handle: into(other)})
	require.Equal(t, 2, receive(t, got).Attempt)
	silent(t, other, 50*time.Millisecond)
	silent(t, got, 50*time.Millisecond)
}

func TestDelayedPublishSurvivesReopen(t *testing.T) {
	path := tempPath(t)
	b := openAt(t, path, Config{})
	due := time.Now().Add(300 * time.Millisecond)
	later, now, past := msg("k", "later"), msg("k", "now"), msg("k", "past")
	driver.SetDue(later, due)
	driver.SetDue(past, due.Add(-time.Hour))
	require.NoError(t, b.Publish("t", later, now, past))
	require.NoError(t, b.Close())

	b = openAt(t, path, Config{})
	got := make(chan *driver.Delivery, 10)
	start(t, b, driver.Subscription{Handle: into(got)})
	require.Equal(t, "now", text(receive(t, got)))
	require.Equal(t, "past", text(receive(t, got)))
	d := receive(t, got)
	require.Equal(t, "later", text(d))
	require.False(t, time.Now().Before(due))
	require.Equal(t, later.Metadata, d.Message.Metadata)
}

func TestDueEventsAreMovedByWhoeverIsThere(t *testing.T) {
	path := tempPath(t)
	reader := openAt(t, path, Config{})
	openAt(t, path, Config{})
	writer := openAt(t, path, Config{})
	got := make(chan *driver.Delivery, 1000)
	start(t, reader, driver.Subscription{Concurrency: 4, Handle: into(got)})
	due := time.Now().Add(200 * time.Millisecond)
	for i := range 20 {
		m := msg("k", i)
		driver.SetDue(m, due)
		require.NoError(t, writer.Publish("t", m))
	}
	for i := range 20 {
		require.Equal(t, fmt.Sprint(i), text(receive(t, got)), "equal due times keep the order of publishing")
	}
	silent(t, got, 50*time.Millisecond)
}

func TestASlowKeyHoldsUpNoOther(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	release, others := make(chan struct{}), make(chan *driver.Delivery, 4000)
	start(t, b, driver.Subscription{Concurrency: 2, Handle: func(d *driver.Delivery) driver.Result {
		if d.Key == "slow" {
			<-release
		} else {
			others <- d
		}
		return driver.Result{}
	}})
	defer close(release)
	var backlog []*message.Message // more than fits into memory at once
	for i := range 3 * minHeld {
		backlog = append(backlog, msg("slow", i))
	}
	require.NoError(t, b.Publish("t", backlog...))
	for i := range 300 {
		require.NoError(t, b.Publish("t", msg(fmt.Sprint("k", i), i)))
	}
	slow := partitionOf("slow", partitionCount)
	for i := range 300 {
		if partitionOf(fmt.Sprint("k", i), partitionCount) != slow {
			receive(t, others)
		}
	}
}

func TestDrainWaitsForHandlersAndStoresProgress(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	entered, proceed := make(chan struct{}), make(chan struct{})
	c, err := b.Subscribe(t.Context(), driver.Subscription{Topic: "t", Group: "g", Concurrency: 1, Handle: func(*driver.Delivery) driver.Result {
		close(entered)
		<-proceed
		return driver.Result{}
	}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	require.NoError(t, b.Publish("t", msg("k", 1)))
	receive(t, entered)
	cancel()
	eventually(t, "idle partitions are free while the handler runs", func() bool {
		return count(t, b, "SELECT count(*) FROM millrace_groups WHERE owner IS NULL") == partitionCount-1
	})
	silent(t, ended, 20*time.Millisecond)
	close(proceed)
	require.NoError(t, receive(t, ended))
	require.Equal(t, 1, count(t, b, "SELECT max(cursor) FROM millrace_groups"))
	require.Equal(t, partitionCount, count(t, b, "SELECT count(*) FROM millrace_groups WHERE owner IS NULL"))
	require.Zero(t, count(t, b, "SELECT count(*) FROM millrace_members"))
}

// ledger checks what the members of a group get together.
type ledger struct {
	mu      sync.Mutex
	running map[string]bool
	last    map[string]int
	total   int
	fault   string
	by      map[string]int // deliveries of each member
}

func newLedger() *ledger {
	return &ledger{running: map[string]bool{}, last: map[string]int{}, by: map[string]int{}}
}

func (l *ledger) handle(member string, pause time.Duration) func(*driver.Delivery) driver.Result {
	return func(d *driver.Delivery) driver.Result {
		l.enter(d.Key)
		if pause > 0 {
			<-time.After(pause)
		}
		l.leave(member, d)
		return driver.Result{}
	}
}

func (l *ledger) enter(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running[key] {
		l.fault = "two events of key " + key + " at a time"
	}
	l.running[key] = true
}

func (l *ledger) leave(member string, d *driver.Delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running[d.Key] = false
	l.by[member]++
	var n int
	_, _ = fmt.Sscan(text(d), &n)
	switch last := l.last[d.Key]; {
	case n == last+1:
		l.last[d.Key] = n
		l.total++
	case n > last+1:
		l.fault = fmt.Sprintf("key %s: %d after %d", d.Key, n, last)
	}
}

func (l *ledger) check(t testing.TB) (total int, by map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Empty(t, l.fault)
	by = map[string]int{}
	for member, n := range l.by {
		by[member] = n
	}
	return l.total, by
}

func TestMembersComingAndGoingKeepOrderAndLoseNothing(t *testing.T) {
	path := tempPath(t)
	const keys, each = 40, 60
	l := newLedger()
	first, second := openAt(t, path, Config{}), openAt(t, path, Config{})
	publisher := openAt(t, path, Config{})
	var wg sync.WaitGroup
	for p := range 8 {
		wg.Go(func() {
			for n := 1; n <= each; n++ {
				for k := p; k < keys; k += 8 {
					if err := publisher.Publish("t", msg(fmt.Sprint("k", k), n)); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	member := func(name string, b *Broker) func() {
		return start(t, b, driver.Subscription{Concurrency: 4, Handle: l.handle(name, time.Millisecond)})
	}
	worked := func(name string) {
		eventually(t, name+" gets a share", func() bool {
			total, by := l.check(t)
			return by[name] > 0 || total == keys*each
		})
	}
	stopA := member("a", first)
	worked("a")
	stopB := member("b", second)
	worked("b")
	stopC := member("c", first)
	worked("c")
	stopA()
	stopD := member("d", second)
	worked("d")
	stopB()
	wg.Wait()
	eventually(t, "everything arrives", func() bool {
		total, _ := l.check(t)
		return total == keys*each
	})
	stopC()
	stopD()
	_, by := l.check(t)
	t.Log("deliveries by member:", by)
}

func TestPartitionsAreSharedEvenly(t *testing.T) {
	path := tempPath(t)
	b, other := openAt(t, path, Config{}), openAt(t, path, Config{})
	owners := func(want string) {
		t.Helper()
		began := time.Now()
		eventually(t, want, func() bool {
			var got string
			require.NoError(t, b.store.read.each("SELECT group_concat(n, ' ') FROM (SELECT count(*) AS n FROM millrace_groups GROUP BY owner ORDER BY n)", nil, scanInto(&got)))
			return got == want
		})
		t.Log(want, "after", time.Since(began).Round(time.Millisecond))
	}
	stop := start(t, b, driver.Subscription{Handle: into(nil)})
	owners("32")
	stop2 := start(t, other, driver.Subscription{Handle: into(nil)})
	owners("16 16")
	start(t, other, driver.Subscription{Handle: into(nil)})
	owners("10 11 11")
	stop()
	owners("16 16")
	stop2()
	owners("32")
}

// With keys a and b in one lane, b's event is done before a's second.
func TestACleanStopRepeatsNothing(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	a1, b1 := "a", ""
	for i := 0; b1 == ""; i++ {
		if key := fmt.Sprint("b", i); partitionOf(key, partitionCount) == partitionOf(a1, partitionCount) {
			b1 = key
		}
	}
	require.NoError(t, b.Publish("t", msg(a1, 1), msg(a1, 2), msg(b1, 3), msg(b1, 4)))
	for round := range 2 { // the second leaves what the first left, too
		got, proceed := make(chan *driver.Delivery, 10), make(chan struct{})
		stop := start(t, b, driver.Subscription{Concurrency: 2, Handle: func(d *driver.Delivery) driver.Result {
			if d.Key == b1 {
				got <- d
				return driver.Result{}
			}
			<-proceed
			return driver.Result{Redeliver: true, Hold: true, Delay: time.Hour}
		}})
		if round == 0 {
			require.Equal(t, "3", text(receive(t, got)))
			require.Equal(t, "4", text(receive(t, got)))
		}
		silent(t, got, 50*time.Millisecond)
		close(proceed)
		stop()
		require.Equal(t, 2, count(t, b, "SELECT count(*) FROM millrace_exceptions"))
	}
	got := make(chan *driver.Delivery, 10)
	start(t, b, driver.Subscription{Handle: into(got)})
	require.Equal(t, "1", text(receive(t, got)))
	require.Equal(t, "2", text(receive(t, got)))
	require.NoError(t, b.Publish("t", msg(b1, 5)))
	require.Equal(t, "5", text(receive(t, got)))
	eventually(t, "the cursor passes them", func() bool { return count(t, b, "SELECT count(*) FROM millrace_exceptions") == 0 })
	require.Equal(t, 5, count(t, b, "SELECT max(cursor) FROM millrace_groups"))
}

// A commit that went through although it was reported as failed leaves a
// partition that its owner does not know of.
func TestAForgottenPartitionIsTakenAgain(t *testing.T) {
	b := openAt(t, tempPath(t), Config{})
	got := make(chan *driver.Delivery, 100)
	start(t, b, driver.Subscription{Handle: into(got)})
	require.NoError(t, b.Publish("t", msg("a", 1)))
	receive(t, got)
	eventually(t, "progress", func() bool { return count(t, b, "SELECT max(cursor) FROM millrace_groups") == 1 })
	b.mu.Lock()
	for c := range b.consumers {
		for _, p := range c.partitions() {
			p.seal()
			c.remove(p)
		}
	}
	b.mu.Unlock()
	require.NoError(t, b.Publish("t", msg("a", 2)))
	require.Equal(t, "2", text(receive(t, got)))
}
