// Package platform is what whoever runs the shop's services gives to each of
// them.
package platform

import (
	"path/filepath"
	"time"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/faults"
)

// Env is the surroundings of one service.
type Env struct {
	// Bus that the services share.
	Bus *eventbus.Bus
	// Dir holds the databases, one file a service.
	Dir string
	// Decline is the share of payments to decline.
	Decline float64
	// Seed of what is decided by chance.
	Seed uint64
	// Faults to inject; nil means none.
	Faults *faults.Faults
}

// Database returns the file of a service's database.
func Database(dir, service string) string { return filepath.Join(dir, service+".db") }

// Lease is how long a killed process may hold up the work that it had taken on,
// of the outboxes' relays and on the bus, before another takes over, be it its
// own successor. A process that is alive but stands still for longer loses its
// work to others too, which costs time but nothing else.
const Lease = 2 * time.Second

// Retry is how all handlers of the shop deal with failure: an order waits for
// its own event, the other orders go on. The delays add up to ten minutes, time
// enough to restart or repair what is broken, before an event becomes a dead
// letter.
var Retry = eventbus.RetryPolicy{
	Tries:        3,
	Backoff:      20 * time.Millisecond,
	Delays:       []time.Duration{100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second},
	Redeliveries: 125,
	KeepOrder:    true,
}
