package eventbustest

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Faults are failures that a broker or a crash may cause. Each rate is the
// share of deliveries, from 0 to 1, that suffers it. What happens to a delivery
// depends on the seed, its topic, group, position and attempt only, so a test
// that publishes in the same order meets the same faults.
type Faults struct {
	// Seed of all decisions; 0 means a random one. It is logged by the test.
	Seed uint64

	// Duplicate delivers an event again some time after it was handled.
	Duplicate float64

	// Delay keeps an event, and its key behind it, for up to MaxDelay.
	Delay float64

	// Reorder keeps an event for up to MaxDelay while later ones of its key
	// overtake it, as a delayed retry does.
	Reorder float64

	// CrashBeforeAck loses the acknowledgement of a handled event, as when the
	// process dies between commit and acknowledgement: it comes again.
	CrashBeforeAck float64

	// CrashAfterAck acknowledges the event but loses the acknowledgements of all
	// others that the group is handling at that moment.
	CrashAfterAck float64

	// MaxDelay defaults to 20 ms.
	MaxDelay time.Duration
}

func (f Faults) inject(t testing.TB, b driver.Broker) driver.Broker {
	t.Helper()
	for name, rate := range map[string]float64{"Duplicate": f.Duplicate, "Delay": f.Delay, "Reorder": f.Reorder, "CrashBeforeAck": f.CrashBeforeAck, "CrashAfterAck": f.CrashAfterAck} {
		if rate < 0 || rate > 1 {
			t.Fatalf("eventbustest: Faults.%s is %v, want a rate from 0 to 1", name, rate)
		}
	}
	if f.Seed == 0 {
		f.Seed = rand.Uint64()
	}
	if f.MaxDelay == 0 {
		f.MaxDelay = 20 * time.Millisecond
	}
	t.Logf("eventbustest: faults with Seed: %d", f.Seed)
	return &faultyBroker{Broker: b, faults: f}
}

type faultyBroker struct {
	driver.Broker
	faults Faults
}

func (b *faultyBroker) Subscribe(ctx context.Context, s driver.Subscription) (driver.Consumer, error) {
	if s.Handle != nil {
		f := &faultyHandler{Faults: b.faults, handle: s.Handle, group: s.Group, injected: map[driver.Position]int{}}
		s.Handle = f.deliver
	}
	return b.Broker.Subscribe(ctx, s)
}

// faultyHandler decides the fate of each delivery to one subscription.
type faultyHandler struct {
	Faults
	handle func(*driver.Delivery) driver.Result
	group  string

	mu       sync.Mutex
	injected map[driver.Position]int // redeliveries that the handler did not ask for
	crashes  int
}

func (f *faultyHandler) deliver(d *driver.Delivery) driver.Result {
	topic, position, attempt := d.Topic, d.Position, d.Attempt
	if late := f.rolls("delay", topic, position, attempt, f.Delay); late || f.rolls("reorder", topic, position, attempt, f.Reorder) {
		f.note(position)
		return driver.Result{Redeliver: true, Hold: late, Delay: f.pause(topic, position, attempt)}
	}
	f.mu.Lock()
	d.Attempt -= f.injected[position]
	crashes := f.crashes
	f.mu.Unlock()
	res := f.handle(d)
	if res.Redeliver {
		return res
	}
	switch {
	case f.crashedSince(crashes), f.rolls("crash before ack", topic, position, attempt, f.CrashBeforeAck):
		f.note(position)
		return driver.Result{Redeliver: true, Hold: true}
	case f.rolls("duplicate", topic, position, attempt, f.Duplicate):
		f.note(position)
		return driver.Result{Redeliver: true, Delay: f.pause(topic, position, attempt)}
	case f.rolls("crash after ack", topic, position, attempt, f.CrashAfterAck):
		f.mu.Lock()
		f.crashes++
		f.mu.Unlock()
	}
	return res
}

func (f *faultyHandler) note(p driver.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.injected[p]++
}

func (f *faultyHandler) crashedSince(crashes int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashes != crashes
}

func (f *faultyHandler) rolls(fault, topic string, p driver.Position, attempt int, rate float64) bool {
	return rate > 0 && float64(f.hash(fault, topic, p, attempt)>>11)/(1<<53) < rate
}

func (f *faultyHandler) pause(topic string, p driver.Position, attempt int) time.Duration {
	return 1 + time.Duration(f.hash("pause", topic, p, attempt)%uint64(f.MaxDelay))
}

func (f *faultyHandler) hash(fault, topic string, p driver.Position, attempt int) uint64 {
	h := fnv.New64a()
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], f.Seed)
	h.Write(seed[:])
	_, _ = fmt.Fprintf(h, "%s\x00%s\x00%s\x00%s\x00%d", fault, topic, f.group, p, attempt)
	x := h.Sum64() // FNV leaves the high bits of similar inputs alike; mix them
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}
