package outbox_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/resilience"
)

// A bad one blocks all: Watermill's forwarder; MassTransit PR#6216 loops for ever.
func TestPoisonRowIsParkedWhileOthersGoOn(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		to.setRefuse(func(_ string, messages []*message.Message) error {
			if slices.ContainsFunc(messages, func(m *message.Message) bool { return m.UUID == "poison" }) {
				return errors.New("record rejected")
			}
			return nil
		})
		stop := start(t, box.Relay(to, outbox.Attempts(4)))
		enqueue(t, box, "orders", msg("1", "a"), msg("poison", "b"), msg("2", "b"), msg("3", "c"))
		to.await(t, "the other keys", func(got []published) bool { return len(got) >= 2 })
		var parked []outbox.ParkedEvent
		n := 0
		eventually(t, "the poison row is parked", func() bool { // others must be accepted meanwhile for a failure to count
			n++
			enqueue(t, box, "orders", msg("more-"+strconv.Itoa(n), "d"))
			var err error
			parked, err = box.Parked(t.Context(), 10)
			require.NoError(t, err)
			return len(parked) == 1
		})
		to.await(t, "the key goes on without it", func(got []published) bool {
			return slices.ContainsFunc(got, func(p published) bool { return p.id == "2" })
		})
		p := parked[0]
		require.Equal(t, "poison", p.ID)
		require.Equal(t, "orders", p.Topic)
		require.Equal(t, "b", p.Key)
		require.Equal(t, "record rejected", p.Error)
		require.Equal(t, 4, p.Attempts)
		require.Equal(t, "payload of poison", string(p.Payload))
		require.Equal(t, "b", p.Metadata[driver.MetadataKey])
		require.WithinDuration(t, time.Now(), p.Parked, time.Minute)

		to.setRefuse(nil)
		unparked, err := box.Unpark(t.Context(), "poison", "unknown")
		require.NoError(t, err)
		require.Equal(t, 1, unparked)
		to.await(t, "the unparked event", func(got []published) bool {
			return slices.ContainsFunc(got, func(p published) bool { return p.id == "poison" })
		})
		require.NoError(t, stop())
		s, err := box.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, s.Parked)
	})
}

// Async produce not awaited, rows deleted while Kafka was down (abp#24340).
func TestBrokerDownBurnsNoAttemptsAndLosesNothing(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		var calls atomic.Int32
		down := func(string, []*message.Message) error { calls.Add(1); return errors.New("connection refused") }
		to.setRefuse(down)
		stop := start(t, box.Relay(to, outbox.Attempts(2)))
		var batch []*message.Message
		for i := range 200 {
			batch = append(batch, msg(strconv.Itoa(i), "k"+strconv.Itoa(i%10)))
		}
		enqueue(t, box, "orders", batch...)
		to.await(t, "many failures", func([]published) bool { return calls.Load() >= 7 })
		require.Less(t, calls.Load(), int32(100), "a broker that is down must not be hammered")
		to.setRefuse(nil)
		to.awaitCount(t, 200)
		require.NoError(t, stop())
		require.Len(t, to.all(), 200)
		s, err := box.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, s.Parked, "an outage is no row's fault")
		require.Zero(t, s.Pending)
		last := map[string]int{}
		for _, p := range to.all() {
			n, _ := strconv.Atoi(p.id)
			require.GreaterOrEqual(t, n, last[p.key])
			last[p.key] = n
		}
	})
}

// A topic that is refused as a whole, with more events than the relay holds at a
// time, looks like an outage until an event of another topic is tried.
func TestRefusedTopicDoesNotStopTheOthers(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		to.setRefuse(func(topic string, _ []*message.Message) error {
			if topic == "closed" {
				return errors.New("not authorized")
			}
			return nil
		})
		var closed, after []*message.Message
		for i := range 60 {
			closed = append(closed, msg("closed-"+strconv.Itoa(i), "c"+strconv.Itoa(i)))
			after = append(after, msg(strconv.Itoa(i), "k"))
		}
		enqueue(t, box, "closed", closed...)
		enqueue(t, box, "open", after...)
		stop := start(t, box.Relay(to, outbox.InFlight(20), outbox.Attempts(2)))
		to.awaitCount(t, 60)
		eventually(t, "the refused events are parked", func() bool {
			enqueue(t, box, "open", msg("more", "k")) // evidence that the broker is up
			p, err := box.Parked(t.Context(), 100)
			return err == nil && len(p) == 60
		})
		eventually(t, "nothing is left", func() bool {
			s, err := box.Stats(t.Context())
			return err == nil && s.Pending == 0
		})
		require.NoError(t, stop())
		for i, id := range to.ids()[:60] {
			require.Equal(t, strconv.Itoa(i), id, "the order of a key holds, and nothing is sent twice")
		}
	})
}

func TestPermanentErrorParksAtOnce(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		to.setRefuse(func(topic string, messages []*message.Message) error {
			for _, m := range messages {
				if m.UUID == "big" {
					return driver.TooLarge(topic, m.UUID, 10, 5)
				}
			}
			return nil
		})
		stop := start(t, box.Relay(to))
		enqueue(t, box, "orders", msg("1", "a"), msg("big", "b"), msg("2", "c"))
		to.awaitCount(t, 2)
		eventually(t, "parked", func() bool { p, err := box.Parked(t.Context(), 0); return err == nil && len(p) == 1 })
		p, err := box.Parked(t.Context(), 0)
		require.NoError(t, err)
		require.Equal(t, "big", p[0].ID)
		require.Contains(t, p[0].Error, "too large")
		require.Equal(t, 1, p[0].Attempts)
		require.NoError(t, stop())
	})
}

// SQS/Kafka batch publish: partial failures must be inspected record by record.
func TestPartialFailuresAreSettledRecordByRecord(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		var failed atomic.Int32
		to.setRefuse(func(topic string, messages []*message.Message) error {
			errs, any := make([]error, len(messages)), false
			for i, m := range messages {
				switch {
				case m.UUID == "never":
					errs[i] = driver.Permanent(errors.New("schema mismatch"))
				case m.UUID == "twice" && failed.Load() < 2:
					failed.Add(1)
					errs[i] = errors.New("leader moved")
				}
				any = any || errs[i] != nil
			}
			if !any {
				return nil
			}
			return &driver.BatchError{Topic: topic, Errs: errs}
		})
		stop := start(t, box.Relay(to))
		enqueue(t, box, "orders", msg("1", "a"), msg("never", "b"), msg("2", "c"), msg("twice", "d"), msg("3", "d"))
		to.awaitCount(t, 4)
		require.NoError(t, stop())
		ids := to.ids()
		require.ElementsMatch(t, []string{"1", "2", "twice", "3"}, ids)
		require.Less(t, slices.Index(ids, "twice"), slices.Index(ids, "3"))
		parked, err := box.Parked(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, parked, 1)
		require.Equal(t, "never", parked[0].ID)
	})
}

func TestParkKeyHoldsTheKeyUntilUnpark(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		refuse := func(_ string, messages []*message.Message) error {
			for _, m := range messages {
				if m.UUID == "k1" {
					return driver.Permanent(errors.New("no"))
				}
			}
			return nil
		}
		to.setRefuse(refuse)
		relay := func() func() error { return start(t, box.Relay(to, outbox.ParkKey())) }
		stop := relay()
		enqueue(t, box, "orders", msg("k1", "k"), msg("k2", "k"), msg("o1", "other"))
		enqueue(t, box, "billing", msg("b1", "k"))
		to.awaitCount(t, 2)
		require.NoError(t, stop())
		stop = relay() // the new one must know what is held
		enqueue(t, box, "orders", msg("k3", "k"), msg("o2", "other"))
		to.awaitCount(t, 3)
		parked := func(want ...string) func() bool {
			return func() bool {
				p, err := box.Parked(t.Context(), 0)
				require.NoError(t, err)
				ids := []string{}
				for _, e := range p {
					ids = append(ids, e.ID)
				}
				return slices.Equal(ids, want)
			}
		}
		eventually(t, "k2 and k3 wait", parked("k1", "k2", "k3"))

		_, err := box.Unpark(t.Context(), "k1") // still refused
		require.NoError(t, err)
		eventually(t, "all wait again", parked("k1", "k2", "k3"))

		to.setRefuse(nil)
		n, err := box.Unpark(t.Context(), "k2", "k1")
		require.NoError(t, err)
		require.Equal(t, 3, n, "the key goes back as a whole")
		enqueue(t, box, "orders", msg("k4", "k"))
		to.awaitCount(t, 7)
		require.NoError(t, stop())
		var order []string
		for _, p := range to.all() {
			if p.topic == "orders" && p.key == "k" {
				order = append(order, p.id)
			}
		}
		require.Equal(t, []string{"k1", "k2", "k3", "k4"}, order)
	})
}

func TestRowThatCannotBeDecodedIsParked(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		enqueue(t, box, "orders", msg("1", "a"), msg("2", "b"))
		_, err := db.Exec(db.Dialect.Rebind("UPDATE millrace_outbox SET metadata = ? WHERE id = ?"), []byte{7}, []byte("1"))
		require.NoError(t, err)
		to := newSink()
		stop := start(t, box.Relay(to))
		to.awaitCount(t, 1)
		require.NoError(t, stop())
		parked, err := box.Parked(t.Context(), 0)
		require.NoError(t, err)
		require.Len(t, parked, 1)
		require.Contains(t, parked[0].Error, "version 7")
	})
}

func TestPublisherPanicIsAnError(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		var once atomic.Bool
		to.setRefuse(func(string, []*message.Message) error {
			if !once.Swap(true) {
				panic("boom")
			}
			return nil
		})
		stop := start(t, box.Relay(to))
		enqueue(t, box, "orders", msg("1", "a"))
		to.awaitCount(t, 1)
		require.NoError(t, stop())
	})
}

// A breaker around the publisher turns calls away: that is no row's fault, even
// while rows of other topics are accepted.
func TestRowsThatAPolicyTurnsAwayAreKept(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		box := newBox(t, db)
		to := newSink()
		breaker := resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "guarded"}))
		breaker.Isolate()
		var turnedAway atomic.Int32
		to.setRefuse(func(topic string, _ []*message.Message) error {
			if topic != "guarded" {
				return nil
			}
			err := breaker.Do(t.Context(), func(context.Context) error { return nil })
			if err != nil {
				turnedAway.Add(1)
				return resilience.AsThrottled(err, 0)
			}
			return nil
		})
		stop := start(t, box.Relay(to, outbox.Attempts(2)))
		enqueue(t, box, "guarded", msg("kept", "g"))
		eventually(t, "many calls were turned away", func() bool {
			enqueue(t, box, "open", msg("more", "k"))
			return turnedAway.Load() > 5
		})
		breaker.Close()
		to.await(t, "the row that was kept", func(got []published) bool {
			return slices.ContainsFunc(got, func(p published) bool { return p.id == "kept" })
		})
		require.NoError(t, stop())
		s, err := box.Stats(t.Context())
		require.NoError(t, err)
		require.Zero(t, s.Parked)
	})
}
