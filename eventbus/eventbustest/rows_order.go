package eventbustest

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
)

func nack(s *suite) {
	b := s.open()
	m := s.join(b, subscription("t", "g"), func(d *driver.Delivery) driver.Result {
		return driver.Result{Redeliver: d.Message.UUID == "a" && d.Attempt < 3}
	})
	s.publish(b, "t", event("a", "k", "x"), event("b", "k", "x"))
	all := m.waitFor("b")
	if got := ids(all); count(all, "a") != 3 || all[2].attempt != 3 || all[3].id != "b" {
		s.broken("want a#1 a#2 a#3 b#1, got %s", got)
	}
	if all[0].position != all[2].position {
		s.broken("the position changed from %s to %s with a redelivery", all[0].position, all[2].position)
	}
}

func nackUncounted(s *suite) {
	b := s.open()
	calls := 0
	m := s.join(b, subscription("t", "g"), func(*driver.Delivery) driver.Result {
		calls++
		return driver.Result{Redeliver: calls < 3, Hold: true, Uncounted: calls == 1}
	})
	s.publish(b, "t", event("a", "k", "x"))
	all := m.wait("three deliveries", func(all []seen) bool { return len(all) == 3 })
	if all[0].attempt != 1 || all[1].attempt != 1 || all[2].attempt != 2 {
		s.broken("want a#1 a#1 a#2, got %s", ids(all))
	}
}

func nackHolding(s *suite) {
	b := s.open()
	if !b.Capabilities().KeyOrder {
		s.Skip("the driver declares no order")
	}
	const wait = time.Second // ample for another key's event
	m := s.join(b, subscription("t", "g"), func(d *driver.Delivery) driver.Result {
		if d.Message.UUID == "a" && d.Attempt == 1 {
			return driver.Result{Redeliver: true, Delay: wait, Hold: true}
		}
		return driver.Result{}
	})
	s.publish(b, "t", event("a", "k", "x"), event("b", "k", "x"), event("other", "k2", "x"))
	all := m.waitFor("b", "other")
	var first, second time.Time
	order := ""
	for _, x := range all {
		switch {
		case x.id == "a" && x.attempt == 1:
			first = x.at
		case x.id == "a":
			second = x.at
		}
		if x.id != "other" {
			order += x.id
		}
	}
	if order != "aab" {
		s.broken("the key did not wait: %s", ids(all))
	}
	if waited := second.Sub(first); waited < wait {
		s.broken("the redelivery came after %v, want at least %v", waited, wait)
	}
	if all[len(all)-1].id == "other" {
		s.broken("another key waited as well: %s", ids(all))
	}
}

func nackDelayed(s *suite) {
	b := s.open()
	if !b.Capabilities().DelayedRedelivery {
		bus, err := eventbus.New(b)
		s.must(err, "bus")
		svc := eventbus.NewService("g", bus)
		svc.Handle("t", func(*message.Message) error { return nil }, eventbus.Retry(eventbus.RetryPolicy{Delays: []time.Duration{time.Second}}))
		s.wantError(svc.Validate(), driver.ErrUnsupported, "a service that retries with delays")
		return
	}
	const wait = time.Second // ample for the next event of the key
	m := s.join(b, subscription("t", "g"), func(d *driver.Delivery) driver.Result {
		if d.Message.UUID == "a" && d.Attempt == 1 {
			return driver.Result{Redeliver: true, Delay: wait}
		}
		return driver.Result{}
	})
	other := s.join(b, subscription("t", "other"), nil)
	s.publish(b, "t", event("a", "k", "x"), event("b", "k", "x"))
	all := m.wait("a again", func(all []seen) bool { return count(all, "a") == 2 })
	if len(all) != 3 || all[1].id != "b" || all[2].attempt != 2 {
		s.broken("want a#1 b#1 a#2, got %s", ids(all))
	}
	if waited := all[2].at.Sub(all[0].at); waited < wait {
		s.broken("the redelivery came after %v, want at least %v", waited, wait)
	}
	if all[0].position != all[2].position || all[0].payload != all[2].payload {
		s.broken("the redelivered event is not the same: %+v, then %+v", all[0], all[2])
	}
	s.publish(b, "t", event("sentinel", "k", "x"))
	if all := other.waitFor("sentinel"); count(all, "a") != 1 {
		s.broken("a redelivery for one group reached another")
	}
}

func nackOnLeaving(s *suite) {
	b := s.open()
	started, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	leaving := s.join(b, subscription("t", "g"), func(*driver.Delivery) driver.Result {
		once.Do(func() { close(started) })
		<-release
		return driver.Result{Redeliver: true, Hold: true}
	})
	s.publish(b, "t", event("a", "k", "x"))
	s.await(started, "the handler to start")
	leaving.stop()
	close(release)
	s.await(leaving.ended, "the member to leave")
	s.join(s.open(), subscription("t", "g"), nil).waitFor("a")
}

func closeUnderHandler(s *suite) {
	b := s.open()
	if !b.Capabilities().Durable {
		s.Skip("the driver declares that it is not durable")
	}
	started, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m := s.join(b, subscription("t", "g"), func(*driver.Delivery) driver.Result {
		once.Do(func() { close(started) })
		<-release
		return driver.Result{}
	})
	s.publish(b, "t", event("a", "k", "x"), event("b", "k", "x"))
	s.await(started, "the handler to start")
	other := s.join(s.open(), subscription("t", "g"), nil)
	s.must(b.Close(), "close")
	close(release)
	s.await(m.ended, "Run to return after Close")
	s.wantError(m.err, driver.ErrClosed, "run of a closed broker")
	s.awaitTotal([]*member{m, other}, 2)
}

// orderCheck fails the suite when an event comes before its predecessor of the
// same key was done, or beside another of its key.
type orderCheck struct {
	suite   *suite
	repeats bool // redelivery after a rebalance may repeat events

	mu   sync.Mutex
	busy map[string]bool
	done map[string]int
	n    int
}

func newOrderCheck(s *suite, repeats bool) *orderCheck {
	return &orderCheck{suite: s, repeats: repeats, busy: map[string]bool{}, done: map[string]int{}}
}

// handle checks, nacks every seventh event once, and acknowledges.
func (c *orderCheck) handle(step int) func(*driver.Delivery) driver.Result {
	return func(d *driver.Delivery) driver.Result {
		n, _ := strconv.Atoi(string(d.Message.Payload))
		if err := c.enter(d, n, step); err != nil {
			c.suite.Errorf("%v\nrule: %s", err, c.suite.why)
		}
		defer c.leave(d.Key)
		if n%7 == 0 && d.Attempt == 1 {
			return driver.Result{Redeliver: true}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if last, known := c.done[d.Key]; !known || n > last {
			c.done[d.Key] = n
			c.n++
		}
		return driver.Result{}
	}
}

func (c *orderCheck) enter(d *driver.Delivery, n, step int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy[d.Key] {
		return fmt.Errorf("two events of key %s are handled at a time", d.Key)
	}
	c.busy[d.Key] = true
	want := n % step
	if last, known := c.done[d.Key]; known {
		want = last + step
		if c.repeats && n <= last {
			return nil
		}
	}
	if n != want {
		return fmt.Errorf("key %s: event %d came where %d was due", d.Key, n, want)
	}
	return nil
}

func (c *orderCheck) leave(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.busy, key)
}

func (c *orderCheck) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func (c *orderCheck) await(total int) {
	c.suite.Helper()
	deadline := time.Now().Add(patience)
	for c.total() < total && !c.suite.Failed() {
		if time.Now().After(deadline) {
			c.suite.broken("waited %v for %d events, %d were handled", patience, total, c.total())
		}
		<-time.After(time.Millisecond)
	}
}

const orderKeys = 5

func keyOrder(s *suite) {
	b := s.open()
	if !b.Capabilities().KeyOrder {
		s.Skip("the driver declares no order")
	}
	check := newOrderCheck(s, false)
	m := s.join(b, subscription("t", "g"), check.handle(orderKeys))
	check.await(s.publishFrom(b, "t", orderKeys, perPublish))
	m.leave()
}

func keyOrderRebalance(s *suite) {
	b := s.open()
	if can := b.Capabilities(); !can.KeyOrder || !can.Groups {
		s.Skip("the driver declares no order or no groups")
	}
	check := newOrderCheck(s, true)
	stays := s.join(b, subscription("t", "g"), check.handle(orderKeys))
	const each, total = 2 * perPublish, publishers * 2 * perPublish
	published := make(chan error, 1)
	go func() { published <- s.publishAll(b, "t", orderKeys, each) }()
	for range 3 {
		m := s.join(s.open(), subscription("t", "g"), check.handle(orderKeys))
		check.await(min(check.total()+total/8, total))
		m.leave()
	}
	s.must(<-published, "publish")
	check.await(total)
	stays.leave()
}

func keyedConcurrency(s *suite) {
	b := s.open()
	if !b.Capabilities().KeyedConcurrency {
		s.Skip("the driver declares no keyed concurrency")
	}
	release := make(chan struct{})
	m := s.join(b, subscription("t", "g"), func(d *driver.Delivery) driver.Result {
		if d.Key == "slow" {
			<-release
		}
		return driver.Result{}
	})
	s.publish(b, "t", event("slow-1", "slow", "x"), event("slow-2", "slow", "x"))
	var want []string
	for i := range 100 {
		id := fmt.Sprint("fast-", i)
		s.publish(b, "t", event(id, fmt.Sprint("key-", i%10), "x"))
		want = append(want, id)
	}
	all := m.waitFor(want...)
	if count(all, "slow-2") > 0 {
		s.broken("the second event of the slow key did not wait for the first")
	}
	close(release)
	m.waitFor("slow-2")
}

func concurrencyLimit(s *suite) {
	b := s.open()
	var running, most atomic.Int32
	full := make(chan struct{})
	release := make(chan struct{})
	sub := subscription("t", "g")
	sub.Concurrency = 3
	other := s.join(b, subscription("t", "other"), nil)
	m := s.join(b, sub, func(*driver.Delivery) driver.Result {
		n := running.Add(1)
		defer running.Add(-1)
		for {
			old := most.Load()
			if n <= old || most.CompareAndSwap(old, n) {
				break
			}
		}
		if n == 3 {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		<-release
		return driver.Result{}
	})
	var want []string
	for i := range 12 {
		id := fmt.Sprint("e", i)
		s.publish(b, "t", event(id, fmt.Sprint("k", i), "x"))
		want = append(want, id)
	}
	if b.Capabilities().KeyedConcurrency {
		s.await(full, "three handlers to run at a time")
	}
	for wave := range 3 { // time for a fourth handler to begin, if it can
		id := fmt.Sprint("sentinel-", wave)
		s.publish(b, "t", event(id, id, "x"))
		other.waitFor(id)
	}
	other.waitFor(want...)
	close(release)
	m.waitFor(want...)
	if most.Load() > 3 {
		s.broken("%d handlers ran at a time, want 3 at most", most.Load())
	}
}

func noKeyNoOrder(s *suite) {
	b := s.open()
	if !b.Capabilities().KeyedConcurrency {
		s.Skip("the driver declares no keyed concurrency")
	}
	release := make(chan struct{})
	m := s.join(b, subscription("t", "g"), func(d *driver.Delivery) driver.Result {
		if d.Message.UUID == "slow" {
			<-release
		}
		return driver.Result{}
	})
	s.publish(b, "t", event("slow", "", "x"), event("a", "", "x"), event("b", "", "x"))
	m.waitFor("a", "b")
	close(release)
}
