package driver

import "fmt"

// Capabilities is what a broker, as configured, promises beyond the required
// core. Zero values promise nothing.
type Capabilities struct {
	// KeyOrder: events of one key are handled in publish order.
	KeyOrder bool
	// KeyedConcurrency: different keys are handled side by side.
	KeyedConcurrency bool
	// Groups: each group sees every event, and several members share the work.
	Groups bool
	// Replay: a new group may begin with events of before it existed, whatever
	// other groups there are (StartOldest). Without it, only the first group of a
	// topic is given what was published before.
	Replay bool
	// Seek: the Broker is a Seeker.
	Seek bool
	// Delay: events can be published for later (MetadataDue).
	Delay bool
	// DelayedRedelivery: a Result may ask for a Delay without holding up the key.
	DelayedRedelivery bool
	// Dedup: of events published with the same id within the broker's window,
	// groups see one.
	Dedup bool
	// Durable: accepted events survive a restart of every process.
	Durable bool
	// MaxPayload is the largest payload in bytes; 0 when unknown.
	MaxPayload int
}

// Lacks names what required asks for and c does not have, in words.
func (c Capabilities) Lacks(required Capabilities) []string {
	var missing []string
	for i, want := range required.flags() {
		if want.has && !c.flags()[i].has {
			missing = append(missing, want.name)
		}
	}
	if required.MaxPayload > c.MaxPayload && c.MaxPayload > 0 {
		missing = append(missing, fmt.Sprintf("payloads of %d bytes (the limit is %d)", required.MaxPayload, c.MaxPayload))
	}
	return missing
}

type flag struct {
	name string
	has  bool
}

func (c Capabilities) flags() [9]flag {
	return [...]flag{
		{"order per key", c.KeyOrder},
		{"different keys side by side", c.KeyedConcurrency},
		{"consumer groups", c.Groups},
		{"replay for new groups", c.Replay},
		{"seeking", c.Seek},
		{"delayed publishing", c.Delay},
		{"delayed redelivery", c.DelayedRedelivery},
		{"deduplication by id", c.Dedup},
		{"durable acknowledgement", c.Durable},
	}
}
