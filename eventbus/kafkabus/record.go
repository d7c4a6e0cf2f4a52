package kafkabus

import (
	"bytes"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// headerUUID is where Watermill's Kafka adapter has the id of a message.
const headerUUID = "_watermill_message_uuid"

// decode reads the id and the metadata of a record. It reads every record: what
// it makes no sense of is for the subscriber to judge.
func decode(r *kgo.Record) (id string, metadata message.Metadata) {
	size := 0
	for i := range r.Headers {
		size += len(r.Headers[i].Value)
	}
	var text strings.Builder // one allocation for all values
	text.Grow(size)
	metadata = make(message.Metadata, len(r.Headers))
	for i := range r.Headers {
		h := &r.Headers[i]
		from := text.Len()
		text.Write(h.Value)
		value := text.String()[from:]
		if h.Key == headerUUID {
			id = value
			continue
		}
		metadata[h.Key] = value
	}
	return id, metadata
}

// keyOf returns the key by which a record is ordered. One that was not published
// by this library is ordered by the record's own.
func keyOf(r *kgo.Record) string {
	key := r.Key
	for i := range r.Headers {
		if r.Headers[i].Key == driver.MetadataKey {
			key = r.Headers[i].Value // as in metadata, the last counts
		}
	}
	return string(key)
}

// detached returns a copy of r that shares no memory with the others that were
// fetched with it.
func detached(r *kgo.Record) *kgo.Record {
	c := *r
	c.Context = nil
	c.Key, c.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	c.Headers = make([]kgo.RecordHeader, len(r.Headers))
	for i, h := range r.Headers {
		c.Headers[i] = kgo.RecordHeader{Key: strings.Clone(h.Key), Value: bytes.Clone(h.Value)}
	}
	return &c
}

// sizeOf returns about how much memory r holds.
func sizeOf(r *kgo.Record) int64 {
	n := 128 + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += 48 + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}
