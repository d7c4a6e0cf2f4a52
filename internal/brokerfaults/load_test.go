package brokerfaults

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

const (
	publishers = 8
	keysEach   = 5
	members    = 2

	// patience bounds how long the whole of a load may stand still.
	patience = 90 * time.Second
)

// load is publishers and the members of one group, each with a connection of
// its own.
type load struct {
	t       *testing.T
	topic   string
	events  int
	ledger  *ledger
	retries atomic.Int32

	mu   sync.Mutex
	sent int           // events
	most int           // that may be sent; 0 means any number
	more chan struct{} // closed when more may be

	publisher  driver.Broker
	publishing sync.WaitGroup
	consuming  sync.WaitGroup
	stop       context.CancelFunc
	ended      context.Context
}

func newLoad(t *testing.T, way *way, events int) *load {
	l := &load{t: t, events: events, topic: way.prefix + "load", ledger: newLedger()}
	l.ended, l.stop = context.WithCancel(t.Context())
	l.publisher = way.open()
	for range members {
		b := way.open()
		c, err := b.Subscribe(t.Context(), driver.Subscription{Topic: l.topic, Group: way.prefix + "group", Concurrency: 16, Handle: func(d *driver.Delivery) driver.Result {
			l.ledger.note(d)
			return driver.Result{}
		}})
		require.NoError(t, err)
		l.consuming.Go(func() {
			if err := c.Run(l.ended); err != nil {
				t.Errorf("a member ended: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		l.stop()
		l.publishing.Wait()
		l.consuming.Wait()
	})
	return l
}

func (l *load) start() {
	for p := range publishers {
		l.publishing.Go(func() { l.publish(p) })
	}
}

// publish sends the events of publisher p one after the other, each until it is
// accepted.
func (l *load) publish(p int) {
	for i := range l.events / publishers {
		l.awaitLeave()
		m := message.NewMessage(fmt.Sprintf("%d-%d", p, i), []byte(strconv.Itoa(i/keysEach)))
		m.Metadata[driver.MetadataKey] = fmt.Sprintf("%d-%d", p, i%keysEach)
		for !l.try(m) {
			if l.ended.Err() != nil {
				return
			}
			l.retries.Add(1)
		}
	}
}

// holdBack lets no more than most events be sent until release.
func (l *load) holdBack(most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most, l.more = most, make(chan struct{})
}

func (l *load) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most = 0
	close(l.more)
}

func (l *load) awaitLeave() {
	l.mu.Lock()
	l.sent++
	wait := l.most > 0 && l.sent > l.most
	more := l.more
	l.mu.Unlock()
	if wait {
		select {
		case <-more:
		case <-l.ended.Done():
		}
	}
}

func (l *load) try(m *message.Message) bool {
	ctx, cancel := context.WithTimeout(l.ended, patience)
	defer cancel()
	m.SetContext(ctx)
	err := l.publisher.Publish(l.topic, m)
	if err == nil {
		return true
	}
	if driver.IsPermanent(err) {
		l.t.Errorf("publish: %v", err)
	}
	select { // whoever gets an error at once should not ask again at once
	case <-l.ended.Done():
	case <-time.After(50 * time.Millisecond):
	}
	return false
}

// awaitHandled waits until n different events were handled.
func (l *load) awaitHandled(n int) {
	l.t.Helper()
	last, deadline := -1, time.Now()
	for {
		handled := l.ledger.handled()
		if handled >= n {
			return
		}
		if handled > last {
			last, deadline = handled, time.Now().Add(patience)
		}
		require.False(l.t, time.Now().After(deadline), "nothing was handled for %v; %d of %d were before", patience, handled, n)
		<-time.After(time.Millisecond)
	}
}

func (l *load) finish() {
	l.t.Helper()
	l.awaitHandled(l.events / publishers * publishers)
	l.stop()
	l.publishing.Wait()
	l.consuming.Wait()
	for _, problem := range l.ledger.problems() {
		l.t.Error(problem)
	}
}

// ledger knows how far each key is.
type ledger struct {
	mu       sync.Mutex
	next     map[string]int
	total    int
	repeated int
	wrong    []string
}

func newLedger() *ledger { return &ledger{next: map[string]int{}} }

func (l *ledger) note(d *driver.Delivery) {
	n, err := strconv.Atoi(string(d.Message.Payload))
	l.mu.Lock()
	defer l.mu.Unlock()
	switch next := l.next[d.Key]; {
	case err != nil:
		l.wrong = append(l.wrong, err.Error())
	case n < next:
		l.repeated++
	case n == next:
		l.next[d.Key]++
		l.total++
	default:
		l.wrong = append(l.wrong, fmt.Sprintf("key %s: event %d came where %d was due", d.Key, n, next))
	}
}

func (l *ledger) handled() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

func (l *ledger) repeats() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.repeated
}

func (l *ledger) problems() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wrong[:min(len(l.wrong), 10)]
}
