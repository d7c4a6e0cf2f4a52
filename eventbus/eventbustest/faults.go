package eventbustest

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Faults are failures that a broker or a crash may cause. Each rate is the
// share of events, from 0 to 1, that suffers it, at most once per event and
// group. Whom it hits depends on the seed, the topic, the group and the event's
// position only, so a test that publishes in the same order meets the same
// faults. What CrashAfterAck takes along depends on what runs at that moment.
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

	mu     sync.Mutex
	groups map[string]*faultyGroup
}

func (b *faultyBroker) Subscribe(ctx context.Context, s driver.Subscription) (driver.Consumer, error) {
	if handle := s.Handle; handle != nil {
		g := b.group(s)
		s.Handle = func(d *driver.Delivery) driver.Result { return g.deliver(d, handle) }
	}
	return b.Broker.Subscribe(ctx, s)
}

func (b *faultyBroker) group(s driver.Subscription) *faultyGroup {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := s.Topic + "/" + s.Group
	if b.groups == nil {
		b.groups = map[string]*faultyGroup{}
	}
	if b.groups[name] == nil {
		b.groups[name] = &faultyGroup{Faults: b.faults, name: name, suffered: map[suffering]bool{}, injected: map[driver.Position]int{}}
	}
	return b.groups[name]
}

// suffering is a fault that has hit an event.
type suffering struct {
	fault    string
	position driver.Position
}

// faultyGroup decides the fate of each delivery to a group.
type faultyGroup struct {
	Faults
	name string

	mu       sync.Mutex
	suffered map[suffering]bool
	injected map[driver.Position]int // redeliveries that the handler did not ask for
	crashes  int
}

func (g *faultyGroup) deliver(d *driver.Delivery, handle func(*driver.Delivery) driver.Result) driver.Result {
	position := d.Position
	if late := g.hits("delay", position, g.Delay); late || g.hits("reorder", position, g.Reorder) {
		return g.inject(position, driver.Result{Redeliver: true, Hold: late, Delay: g.pause(position)})
	}
	g.mu.Lock()
	d.Attempt -= g.injected[position]
	crashes := g.crashes
	g.mu.Unlock()
	res := handle(d)
	if res.Redeliver {
		return res
	}
	switch {
	case g.crashedSince(crashes), g.hits("crash before ack", position, g.CrashBeforeAck):
		return g.inject(position, driver.Result{Redeliver: true, Hold: true})
	case g.hits("duplicate", position, g.Duplicate):
		return g.inject(position, driver.Result{Redeliver: true, Delay: g.pause(position)})
	case g.hits("crash after ack", position, g.CrashAfterAck):
		g.mu.Lock()
		g.crashes++
		g.mu.Unlock()
	}
	return res
}

func (g *faultyGroup) inject(p driver.Position, res driver.Result) driver.Result {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.injected[p]++
	return res
}

func (g *faultyGroup) crashedSince(crashes int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.crashes != crashes
}

// hits reports whether the event suffers the fault now.
func (g *faultyGroup) hits(fault string, p driver.Position, rate float64) bool {
	if rate == 0 || float64(g.hash(fault, p)>>11)/(1<<53) >= rate {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.suffered[suffering{fault, p}]
	g.suffered[suffering{fault, p}] = true
	return !before
}

func (g *faultyGroup) pause(p driver.Position) time.Duration {
	return 1 + time.Duration(g.hash("pause", p)%uint64(g.MaxDelay))
}

func (g *faultyGroup) hash(fault string, p driver.Position) uint64 {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d\x00%s\x00%s\x00%s", g.Seed, fault, g.name, p)
	x := h.Sum64() // FNV leaves the high bits of similar inputs alike; mix them
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}
