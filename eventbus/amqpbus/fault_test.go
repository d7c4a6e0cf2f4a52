package amqpbus

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// ledger checks that each key's events come in order, repeats aside.
type ledger struct {
	mu    sync.Mutex
	next  map[string]int
	busy  map[string]bool
	wrong []string
	total int
}

func newLedger() *ledger { return &ledger{next: map[string]int{}, busy: map[string]bool{}} }

func (l *ledger) handle(d *driver.Delivery) driver.Result {
	n, _ := strconv.Atoi(text(d))
	l.mu.Lock()
	if l.busy[d.Key] {
		l.wrong = append(l.wrong, fmt.Sprintf("two events of key %s at a time", d.Key))
	}
	l.busy[d.Key] = true
	switch next := l.next[d.Key]; {
	case n > next:
		l.wrong = append(l.wrong, fmt.Sprintf("key %s: %d came where %d was due", d.Key, n, next))
	case n == next:
		l.next[d.Key]++
		l.total++
	}
	l.mu.Unlock()
	runtime.Gosched()
	l.mu.Lock()
	delete(l.busy, d.Key)
	l.mu.Unlock()
	return driver.Result{}
}

func (l *ledger) handled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

func TestNoEventIsLostOrOutOfOrderWhenConnectionsFail(t *testing.T) {
	for name, disturb := range map[string]func(*way){
		"cut": func(w *way) {
			for range 3 {
				w.cut()
				w.mend()
				<-time.After(300 * time.Millisecond)
			}
		},
		"slow": func(w *way) {
			heal := w.poison("latency", slowness)
			<-time.After(time.Second)
			heal()
		},
		"half open": func(w *way) {
			heal := w.poison("timeout", swallow)
			<-time.After(5 * time.Second) // more than three heartbeats
			heal()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWay(t, "?heartbeat=1s")
			topic := topicFor(t)
			publisher, one, two := openAt(t, w.url), openAt(t, w.url), openAt(t, w.url)
			l := newLedger()
			for _, b := range []*Broker{one, two} {
				start(t, b, driver.Subscription{Topic: topic, Concurrency: 8, Handle: l.handle})
			}
			const publishers, each = 4, 300
			var wg sync.WaitGroup
			for p := range publishers {
				wg.Go(func() {
					for i := range each {
						if err := publisher.Publish(topic, msg(fmt.Sprint("p", p, "-", i%3), i/3)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			eventually(t, "work has begun", func() bool { return l.handled() > each })
			disturb(w)
			wg.Wait()
			eventually(t, "all events are handled", func() bool { return l.handled() == publishers*each })
			require.Empty(t, l.wrong)
		})
	}
}

// A handler that still runs when its event comes again, over the next
// connection, must not be joined by a second one.
func TestARedeliveryWaitsForTheHandlerOfTheLostConnection(t *testing.T) {
	w := newWay(t, "")
	topic := topicFor(t)
	b := openAt(t, w.url)
	started, release := make(chan string, 10), make(chan struct{})
	start(t, b, driver.Subscription{Topic: topic, Concurrency: 4, Handle: func(d *driver.Delivery) driver.Result {
		started <- text(d)
		<-release
		return driver.Result{}
	}})
	require.NoError(t, b.Publish(topic, msg("k", 1), msg("k", 2)))
	require.Equal(t, "1", receive(t, started))
	w.cut()
	w.mend()
	eventually(t, "it is connected again", func() bool {
		s, err := b.consuming.get(context.Background())
		return err == nil && s.alive()
	})
	select {
	case again := <-started:
		require.Fail(t, "a second handler", again)
	case <-time.After(500 * time.Millisecond):
	}
	close(release)
	require.Equal(t, "1", receive(t, started), "whether it was handled is not known to the broker")
	require.Equal(t, "2", receive(t, started))
}

// A series of retries must come to its end although the broker delivers anew.
func TestAttemptsAreCountedAcrossConnections(t *testing.T) {
	w := newWay(t, "")
	topic := topicFor(t)
	b := openAt(t, w.url)
	tried := make(chan int, 100)
	start(t, b, driver.Subscription{Topic: topic, Handle: func(d *driver.Delivery) driver.Result {
		tried <- d.Attempt
		switch {
		case d.Attempt <= 3:
			return driver.Result{Redeliver: true, Hold: true}
		case d.Attempt == 4:
			return driver.Result{Redeliver: true, Delay: time.Hour}
		}
		return driver.Result{}
	}})
	require.NoError(t, b.Publish(topic, msg("k", 1)))
	for i := range 4 {
		require.Equal(t, i+1, receive(t, tried))
	}
	w.cut()
	w.mend()
	require.Equal(t, 5, receive(t, tried))
	require.NoError(t, b.Publish(topic, msg("k", 1)))
	require.Equal(t, 1, receive(t, tried), "the counts of what is settled are forgotten")
}

func TestPublishHonoursItsContext(t *testing.T) {
	w := newWay(t, "")
	b := openAt(t, w.url)
	w.cut()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	m := msg("k", 1)
	m.SetContext(ctx)
	began := time.Now()
	err := b.Publish(topicFor(t), m)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "not connected: ")
	require.ErrorContains(t, err, "nothing listens there")
	require.Less(t, time.Since(began), 3*time.Second)
}

func TestPublishTimesOutWithoutAConnection(t *testing.T) {
	w := newWay(t, "?publish_timeout=300ms")
	b := openAt(t, w.url)
	w.cut()
	err := b.Publish(topicFor(t), msg("k", 1), msg("k", 2))
	require.ErrorContains(t, err, "2 of 2 events were not published")
	require.ErrorContains(t, err, "context deadline exceeded: not confirmed within 300ms: not connected: ")
}

func TestPublishWaitsForTheConnection(t *testing.T) {
	w := newWay(t, "")
	b := openAt(t, w.url)
	topic := topicFor(t)
	require.NoError(t, b.Publish(topic, msg("k", 1)))
	w.cut()
	published := make(chan error, 1)
	go func() { published <- b.Publish(topic, msg("k", 2)) }()
	<-time.After(200 * time.Millisecond)
	w.mend()
	require.NoError(t, receive(t, published))
	require.Equal(t, 2, inQueue(t, unclaimed(topic)))
}

func TestSubscribeHonoursItsContext(t *testing.T) {
	w := newWay(t, "")
	b := openAt(t, w.url)
	w.cut()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := b.Subscribe(ctx, driver.Subscription{Topic: topicFor(t), Group: "g", Concurrency: 1, Handle: into(nil)})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "nothing listens there")
}
