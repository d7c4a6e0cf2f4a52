package eventbustest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func groupFanOut(s *suite) {
	b := s.open()
	one := s.join(b, subscription("t", "one"), nil)
	two := s.join(s.open(), subscription("t", "two"), nil)
	other := s.join(b, subscription("other", "one"), nil)
	s.publish(b, "t", event("a", "k", "x"), event("b", "k", "x"))
	s.publish(b, "other", event("c", "k", "x"))
	for _, m := range []*member{one, two} {
		if all := m.waitFor("a", "b"); count(all, "c") > 0 {
			s.broken("an event of another topic came along")
		}
	}
	if all := other.waitFor("c"); len(all) != 1 {
		s.broken("an event of another topic came along: %s", ids(all))
	}
}

func groupCompetition(s *suite) {
	first, second := s.open(), s.open()
	if !first.Capabilities().Groups {
		s.Skip("the driver declares no groups")
	}
	members := []*member{
		s.join(first, subscription("t", "g"), nil),
		s.join(second, subscription("t", "g"), nil),
	}
	// Waves, because members may take a moment to agree on who does what.
	deadline := time.Now().Add(patience)
	published := 0
	for len(members[0].snapshot()) == 0 || len(members[1].snapshot()) == 0 {
		if time.Now().After(deadline) {
			s.broken("one member did all the work: %d and %d events", len(members[0].snapshot()), len(members[1].snapshot()))
		}
		for range 50 {
			s.publish(first, "t", event(fmt.Sprint("e", published), fmt.Sprint("k", published), "x"))
			published++
		}
		s.awaitTotal(members, published)
	}
	times := map[string]int{}
	for _, m := range members {
		m.leave()
		for _, x := range m.snapshot() {
			if times[x.id]++; times[x.id] > 1 && x.attempt == 1 {
				s.broken("event %s went to both members", x.id)
			}
		}
	}
}

// awaitTotal waits until the members together have seen n different events.
func (s *suite) awaitTotal(members []*member, n int) {
	s.Helper()
	deadline := time.Now().Add(patience)
	for {
		distinct := map[string]bool{}
		for _, m := range members {
			for _, x := range m.snapshot() {
				distinct[x.id] = true
			}
		}
		if len(distinct) >= n {
			return
		}
		if time.Now().After(deadline) {
			s.broken("waited %v for %d events, the group has seen %d", patience, n, len(distinct))
		}
		<-time.After(time.Millisecond)
	}
}

func groupWaits(s *suite) {
	b := s.open()
	s.join(b, subscription("t", "g"), nil).leave()
	s.publish(b, "t", event("a", "k", "x"), event("b", "k", "x"))
	s.join(b, subscription("t", "g"), nil).waitFor("a", "b")
}

func startOldest(s *suite) {
	b := s.open()
	s.publish(b, "t", event("before", "k", "x"))
	m := s.join(b, subscription("t", "g"), nil)
	s.publish(b, "t", event("after", "k", "x"))
	m.waitFor("before", "after")
}

func startNewest(s *suite) {
	b := s.open()
	s.publish(b, "t", event("before", "k", "x"))
	sub := subscription("t", "g")
	sub.Start = driver.StartNewest
	m := s.join(b, sub, nil)
	s.publish(b, "t", event("after", "k", "x"))
	if all := m.waitFor("after"); count(all, "before") > 0 {
		s.broken("an event came that was published before the group existed")
	}
}

func replay(s *suite) {
	b := s.open()
	first := s.join(b, subscription("t", "first"), nil)
	s.publish(b, "t", event("before", "k", "x"))
	first.waitFor("before")
	later := s.join(b, subscription("t", "later"), nil)
	s.publish(b, "t", event("after", "k", "x"))
	all := later.waitFor("after")
	if can, got := b.Capabilities().Replay, count(all, "before") > 0; can != got {
		s.broken("replay is declared as %v, but the later group was given the earlier event: %v", can, got)
	}
}

func startOnce(s *suite) {
	b := s.open()
	s.join(b, subscription("t", "g"), nil).leave()
	s.publish(b, "t", event("between", "k", "x"))
	sub := subscription("t", "g")
	sub.Start = driver.StartNewest
	s.join(b, sub, nil).waitFor("between")
}

func resume(s *suite) {
	b := s.open()
	s.publish(b, "t", event("a", "k", "x"), event("b", "k", "x"))
	first := s.join(b, subscription("t", "g"), nil)
	first.waitFor("a", "b")
	first.leave()
	s.publish(b, "t", event("c", "k", "x"))
	second := s.join(b, subscription("t", "g"), nil)
	if all := second.waitFor("c"); len(all) != 1 {
		s.broken("events came again that had been acknowledged: %s", ids(all))
	}
}

func resumeAfterClose(s *suite) {
	b := s.open()
	if !b.Capabilities().Durable {
		s.Skip("the driver declares that it is not durable")
	}
	m := s.join(b, subscription("t", "g"), nil)
	s.publish(b, "t", event("a", "k", "x"))
	m.waitFor("a")
	m.leave()
	s.publish(b, "t", event("b", "k", "x"))
	s.must(b.Close(), "close")
	again := s.open()
	s.publish(again, "t", event("c", "k", "x"))
	if all := s.join(again, subscription("t", "g"), nil).waitFor("b", "c"); count(all, "a") > 0 {
		s.broken("an acknowledged event came again after a clean close")
	}
}

func seek(s *suite) {
	b := s.open()
	_, is := b.(*within).Broker.(driver.Seeker)
	if can := b.Capabilities().Seek; can != is {
		s.broken("seek is declared as %v, but the broker is a driver.Seeker: %v", can, is)
	}
	if !is {
		return
	}
	seeker := b.(*within)
	s.publish(b, "t", event("a", "k", "x"), event("b", "k", "x"))
	<-time.After(50 * time.Millisecond) // brokers count in milliseconds, and not by this clock
	between := time.Now()
	<-time.After(50 * time.Millisecond)
	s.publish(b, "t", event("c", "k", "x"))
	m := s.join(b, subscription("t", "g"), nil)
	m.waitFor("a", "b", "c")
	s.wantError(seeker.Seek(context.Background(), "t", "g", time.Time{}), driver.ErrBusy, "seek under a running member")
	m.leave()
	for _, c := range []struct {
		to   time.Time
		want string
	}{{time.Time{}, "abc"}, {between, "c"}, {time.Now().Add(time.Hour), ""}} {
		s.must(seeker.Seek(context.Background(), "t", "g", c.to), "seek")
		sentinel := fmt.Sprint("sentinel ", c.want)
		s.publish(b, "t", event(sentinel, "k", "x"))
		again := s.join(b, subscription("t", "g"), nil)
		got := ""
		for _, x := range again.waitFor(sentinel) {
			if len(x.id) == 1 {
				got += x.id
			}
		}
		again.leave()
		if got != c.want {
			s.broken("after seeking to %v the events were %q, want %q", c.to, got, c.want)
		}
	}
	s.must(seeker.Seek(context.Background(), "t", "new", time.Now().Add(time.Hour)), "seek of a new group")
	s.publish(b, "t", event("d", "k", "x"))
	if all := s.join(b, subscription("t", "new"), nil).waitFor("d"); len(all) != 1 {
		s.broken("a new group that was sent to the end was given %s", ids(all))
	}
}

func drain(s *suite) {
	b := s.open()
	started, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m := s.join(b, subscription("t", "g"), func(d *driver.Delivery) driver.Result {
		if d.Message.UUID == "running" {
			once.Do(func() { close(started) })
			<-release
		}
		return driver.Result{}
	})
	s.publish(b, "t", event("running", "k", "x"), event("behind", "k", "x"))
	s.await(started, "the handler to start")
	m.stop()
	other := s.join(b, subscription("t", "other"), nil)
	for _, sentinel := range []string{"sentinel", "second", "third"} { // by the time it has read all, m would have returned
		s.publish(b, "t", event(sentinel, "k", "x"))
		other.waitFor(sentinel)
	}
	select {
	case <-m.ended:
		s.broken("Run returned while a handler was running")
	default:
	}
	close(release)
	s.await(m.ended, "Run to return after the last handler")
	s.must(m.err, "run")
	if all := m.snapshot(); count(all, "behind") > 0 {
		s.broken("a handler was started after the consumer had been stopped")
	}
	next := s.join(b, subscription("t", "g"), nil)
	if all := next.waitFor("behind"); count(all, "running") > 0 {
		s.broken("the event that was finished while draining came again")
	}
}

func invalidSubscription(s *suite) {
	b := s.open()
	good := subscription("t", "g")
	good.Handle = acknowledge
	for what, change := range map[string]func(*driver.Subscription){
		"no handler":       func(x *driver.Subscription) { x.Handle = nil },
		"no concurrency":   func(x *driver.Subscription) { x.Concurrency = 0 },
		"no group":         func(x *driver.Subscription) { x.Group = "" },
		"a group too long": func(x *driver.Subscription) { x.Group = strings.Repeat("g", 250) },
	} {
		bad := good
		change(&bad)
		if _, err := b.Subscribe(context.Background(), bad); err == nil {
			s.broken("a subscription with %s was accepted", what)
		}
	}
}

func subscribeCancelled(s *suite) {
	b := s.open()
	reason := errors.New("the start was abandoned")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(reason)
	sub := subscription("t", "g")
	sub.Handle = acknowledge
	_, err := b.Subscribe(ctx, sub)
	s.wantError(err, reason, "subscribe with a context that has ended")
	m := s.join(b, subscription("t", "g"), nil)
	_, err = b.Subscribe(ctx, sub)
	s.wantError(err, reason, "subscribe to a group that exists with a context that has ended")
	var want []string
	for i := range 50 {
		id := fmt.Sprint("e", i)
		s.publish(b, "t", event(id, fmt.Sprint("k", i), "x"))
		want = append(want, id)
	}
	m.waitFor(want...) // a second member would have a share
}

func runEnded(s *suite) {
	b := s.open()
	sub := subscription("t", "g")
	sub.Handle = func(*driver.Delivery) driver.Result {
		s.Errorf("a handler was called\nrule: %s", s.why)
		return driver.Result{}
	}
	s.publish(b, "t", event("a", "k", "x"))
	c, err := b.Subscribe(context.Background(), sub)
	s.must(err, "subscribe")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.must(c.Run(ctx), "run")
	s.join(b, subscription("t", "g"), nil).waitFor("a")
}

func provisionOff(s *suite) {
	if s.backend.OpenUnprovisioned == nil {
		s.Skip("the driver creates nothing per topic or group")
	}
	bare := s.openBy(s.backend.OpenUnprovisioned)
	refused := func(err error, doing string) {
		s.Helper()
		s.wantError(err, driver.ErrNotProvisioned, doing)
		if !driver.IsPermanent(err) {
			s.broken("%s: the error is not permanent: %v", doing, err)
		}
	}
	refused(bare.Publish("t", event("lost", "k", "x")), "publish to a topic that does not exist")
	sub := subscription("t", "g")
	sub.Handle = acknowledge
	_, err := bare.Subscribe(context.Background(), sub)
	refused(err, "subscribe to a topic that does not exist")
	b := s.open()
	s.join(b, subscription("t", "g"), nil).leave()
	s.publish(bare, "t", event("a", "k", "x"))
	if all := s.join(bare, subscription("t", "g"), nil).waitFor("a"); count(all, "lost") > 0 {
		s.broken("an event was published although Publish failed")
	}
}

func closed(s *suite) {
	b := s.open()
	m := s.join(b, subscription("t", "g"), nil)
	s.publish(b, "t", event("e", "k", "x"))
	m.waitFor("e")
	s.must(b.Close(), "close")
	s.await(m.ended, "Run to return after Close")
	s.wantError(m.err, driver.ErrClosed, "run of a closed broker")
	s.wantError(b.Publish("t", event("e", "k", "x")), driver.ErrClosed, "publish after Close")
	sub := subscription("t", "g")
	sub.Handle = acknowledge
	_, err := b.Subscribe(context.Background(), sub)
	s.wantError(err, driver.ErrClosed, "subscribe after Close")
	s.must(b.Close(), "close again")
}
