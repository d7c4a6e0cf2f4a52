package outbox

import "sync/atomic"

// Counters are what a relay has done since it was made, for metrics: they only
// rise.
type Counters struct {
	// Published is how many events a publisher has accepted, repeats included.
	Published uint64
	// Refused is how many times an event was not accepted although it was tried alone
	// or got a verdict of its own.
	Refused uint64
	// Parked is how many events were set aside.
	Parked uint64
}

type counters struct {
	published, refused, parked atomic.Uint64
}

// Counters returns what this relay has done. What the outbox as a whole has to
// do is in [Outbox.Stats].
func (r *Relay) Counters() Counters {
	c := &r.counters
	return Counters{Published: c.published.Load(), Refused: c.refused.Load(), Parked: c.parked.Load()}
}
