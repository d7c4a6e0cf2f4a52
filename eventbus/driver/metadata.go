package driver

import (
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// Metadata keys that drivers read. Every other key passes through untouched.
const (
	// MetadataKey holds the key by which events are ordered: the CloudEvents
	// partitioning extension.
	MetadataKey = "ce_partitionkey"

	// MetadataDue holds the time before which an event must not be delivered,
	// as RFC 3339 with nanoseconds. It needs Capabilities.Delay.
	MetadataDue = "millrace_due"
)

// Key returns the ordering key of m, or "".
func Key(m *message.Message) string { return m.Metadata[MetadataKey] }

// Due returns the time before which m must not be delivered; the zero time
// when it is due at once.
func Due(m *message.Message) (time.Time, error) {
	s, ok := m.Metadata[MetadataDue]
	if !ok {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, Permanent(fmt.Errorf("driver: event %s: metadata %s: %q is not an RFC 3339 time", m.UUID, MetadataDue, s))
	}
	return t, nil
}

// SetDue asks for m to be delivered no earlier than at.
func SetDue(m *message.Message, at time.Time) {
	m.Metadata.Set(MetadataDue, at.UTC().Format(time.RFC3339Nano))
}
