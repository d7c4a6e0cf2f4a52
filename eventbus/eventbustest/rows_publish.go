package eventbustest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/driver"
)

func everyByte() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}

func roundTrip(s *suite) {
	b := s.open()
	m := s.join(b, subscription("t", "g"), nil)
	bytes := event("bytes", "k\u00e9y", everyByte())
	bytes.Metadata["plain"] = "value"
	bytes.Metadata["empty"] = ""
	bytes.Metadata["Unicode \u2713"] = "\u65e5\u672c\r\n\t"
	bytes.Metadata["bytes"] = everyByte()
	empty := event("empty", "", "")
	s.publish(b, "t", bytes)
	s.publish(b, "t", empty)
	all := m.waitFor("bytes", "empty")
	for _, got := range all {
		want := bytes
		if got.id == "empty" {
			want = empty
		}
		if got.payload != string(want.Payload) {
			s.broken("payload of %s: got %q, want %q", got.id, got.payload, want.Payload)
		}
		if !maps.Equal(got.metadata, want.Metadata) {
			s.broken("metadata of %s: got %q, want %q", got.id, got.metadata, want.Metadata)
		}
		if got.key != driver.Key(want) || got.attempt != 1 {
			s.broken("delivery of %s: got key %q and attempt %d, want %q and 1", got.id, got.key, got.attempt, driver.Key(want))
		}
	}
}

func publisherKeepsNothing(s *suite) {
	b := s.open()
	e := event("e", "k", "original")
	e.Metadata["m"] = "original"
	s.publish(b, "t", e)
	copy(e.Payload, "scribble")
	e.Metadata["m"] = "scribble"
	got := s.join(b, subscription("t", "g"), nil).waitFor("e")[0]
	if got.payload != "original" || got.metadata["m"] != "original" {
		s.broken("got payload %q and metadata %q after the publisher changed its copy", got.payload, got.metadata["m"])
	}
}

func handlerOwnsMessage(s *suite) {
	b := s.open()
	scribble := func(d *driver.Delivery) driver.Result {
		d.Message.Payload = []byte("scribble")
		d.Message.Metadata["m"] = "scribble"
		return driver.Result{Redeliver: d.Attempt == 1}
	}
	one := s.join(b, subscription("t", "one"), scribble)
	two := s.join(b, subscription("t", "two"), scribble)
	e := event("e", "k", "original")
	e.Metadata["m"] = "original"
	s.publish(b, "t", e)
	for _, m := range []*member{one, two} {
		for _, got := range m.wait("two deliveries", func(all []seen) bool { return len(all) == 2 }) {
			if got.payload != "original" || got.metadata["m"] != "original" {
				s.broken("attempt %d: got payload %q and metadata %q", got.attempt, got.payload, got.metadata["m"])
			}
		}
	}
}

const (
	publishers = 8
	perPublish = 50
)

// publishFrom has every publisher send its own sequence for each key.
func (s *suite) publishFrom(b driver.Broker, topic string, keys, each int) (total int) {
	s.Helper()
	s.must(s.publishAll(b, topic, keys, each), "publish")
	return publishers * each
}

// publishAll is publishFrom for any goroutine.
func (s *suite) publishAll(b driver.Broker, topic string, keys, each int) error {
	var wg sync.WaitGroup
	errs := make(chan error, publishers)
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				key := ""
				if keys > 0 {
					key = fmt.Sprintf("p%d-k%d", p, i%keys)
				}
				e := event(fmt.Sprintf("p%d-%d", p, i), key, fmt.Sprint(i))
				if err := b.Publish(topic, e); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

func publishMany(s *suite) {
	b := s.open()
	m := s.join(b, subscription("t", "g"), nil)
	total := s.publishFrom(b, "t", 0, perPublish)
	m.wait("all events", func(all []seen) bool { return len(all) >= total })
	m.leave()
	times := map[string]int{}
	for _, x := range m.snapshot() {
		if times[x.id]++; times[x.id] > 1 {
			s.broken("event %s came twice although nothing failed", x.id)
		}
	}
	if len(times) != total {
		s.broken("%d different events came, want %d", len(times), total)
	}
}

func publishBatch(s *suite) {
	b := s.open()
	m := s.join(b, subscription("t", "g"), nil)
	var batch []*message.Message
	var want []string
	for i := range 100 {
		id := fmt.Sprint("e", i)
		batch, want = append(batch, event(id, "k", "x")), append(want, id)
	}
	s.publish(b, "t", batch...)
	s.publish(b, "t") // no event at all is no error
	all := m.waitFor(want...)
	for i, x := range all {
		if x.id != want[i] {
			s.broken("event %d of the batch is %s, want %s", i, x.id, want[i])
		}
	}
}

func delayedPublish(s *suite) {
	b := s.open()
	const wait = 300 * time.Millisecond
	later := event("later", "k", "x")
	due := time.Now().Add(wait)
	driver.SetDue(later, due)
	if !b.Capabilities().Delay {
		bus, err := eventbus.New(b)
		s.must(err, "bus")
		s.wantError(bus.Publish("t", later), driver.ErrUnsupported, "publish with a due time")
		return
	}
	m := s.join(b, subscription("t", "g"), nil)
	past := event("past", "k", "x")
	driver.SetDue(past, time.Now().Add(-time.Hour))
	s.publish(b, "t", later, past, event("now", "k", "x"))
	all := m.waitFor("now", "past", "later")
	last := all[len(all)-1]
	if last.id != "later" {
		s.broken("the delayed event came before others: %s", ids(all))
	}
	if early := due.Sub(last.at); early > 0 {
		s.broken("the delayed event came %v early", early)
	}
	bad := event("bad", "", "x")
	bad.Metadata[driver.MetadataDue] = "tomorrow"
	if err := b.Publish("t", bad); !driver.IsPermanent(err) {
		s.broken("publish with a due time that is no time: got error %v, want a permanent one", err)
	}
}

func dedup(s *suite) {
	b := s.open()
	m := s.join(b, subscription("t", "g"), nil)
	s.publish(b, "t", event("twice", "k", "x"))
	s.publish(b, "t", event("twice", "k", "x"))
	s.publish(b, "t", event("sentinel", "k", "x"))
	want := 2
	if b.Capabilities().Dedup {
		want = 1
	}
	if n := count(m.waitFor("sentinel"), "twice"); n != want {
		s.broken("dedup is declared as %v, but the event came %d times", b.Capabilities().Dedup, n)
	}
}

func tooLarge(s *suite) {
	b := s.open()
	limit := b.Capabilities().MaxPayload
	if limit == 0 {
		s.Skip("the driver declares no limit")
	}
	m := s.join(b, subscription("t", "g"), nil)
	err := b.Publish("t", event("over", "k", strings.Repeat("x", limit+1)))
	s.wantError(err, driver.ErrTooLarge, "publish over the limit")
	if !driver.IsPermanent(err) {
		s.broken("the error is not permanent: %v", err)
	}
	s.publish(b, "t", event("at", "k", strings.Repeat("x", limit)))
	if all := m.waitFor("at"); len(all) != 1 || len(all[0].payload) != limit {
		s.broken("got %s, want the event at the limit alone and whole", ids(all))
	}
}

func batchRefused(s *suite) {
	b := s.open()
	limit := b.Capabilities().MaxPayload
	if limit == 0 {
		s.Skip("the driver declares no limit")
	}
	err := b.Publish("t", event("a", "k", "x"), event("over", "k", strings.Repeat("x", limit+1)), event("b", "k", "x"))
	var batch *driver.BatchError
	if !errors.As(err, &batch) || len(batch.Errs) != 3 {
		s.broken("got error %v, want a *driver.BatchError with three elements", err)
	}
	s.wantError(batch.Errs[1], driver.ErrTooLarge, "the bad event")
	m := s.join(b, subscription("t", "g"), nil)
	s.publish(b, "t", event("sentinel", "k", "x"))
	all := m.waitFor("sentinel")
	for i, id := range []string{"a", "over", "b"} {
		if accepted := batch.Errs[i] == nil; accepted != (count(all, id) > 0) {
			s.broken("event %s: reported as accepted %v, but delivered %d times", id, accepted, count(all, id))
		}
	}
}

func invalidTopic(s *suite) {
	b := s.open()
	for _, name := range []string{"", ".", "..", "with space", "with/slash", "\u00fcml\u00e4ut", strings.Repeat("x", 250)} {
		s.wantError(b.Publish(name, event("e", "", "x")), driver.ErrInvalidName, fmt.Sprintf("publish to topic %q", name))
		sub := subscription(name, "g")
		sub.Handle = acknowledge
		_, err := b.Subscribe(context.Background(), sub)
		s.wantError(err, driver.ErrInvalidName, fmt.Sprintf("subscribe to topic %q", name))
	}
	s.publish(b, "Letters-123_and.dots", event("e", "", "x"))
}

func publishCancelled(s *suite) {
	b := s.open()
	m := s.join(b, subscription("t", "g"), nil)
	reason := errors.New("the request was abandoned")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(reason)
	e := event("cancelled", "k", "x")
	e.SetContext(ctx)
	s.wantError(b.Publish("t", e), reason, "publish with a context that has ended")
	s.publish(b, "t", event("sentinel", "k", "x"))
	if all := m.waitFor("sentinel"); count(all, "cancelled") > 0 {
		s.broken("the event was published all the same")
	}
}
