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

// read returns the values of all headers of r, one after the other, and the key by
// which it is ordered, in one allocation. A record that was not published by this
// library is ordered by its own key.
func read(r *kgo.Record) (values, key string) {
	size := len(r.Key)
	for i := range r.Headers {
		size += len(r.Headers[i].Value)
	}
	var text strings.Builder
	text.Grow(size)
	from, to := -1, 0
	for i := range r.Headers {
		h := &r.Headers[i]
		text.Write(h.Value)
		if h.Key == driver.MetadataKey { // as in metadata, the last counts
			from, to = text.Len()-len(h.Value), text.Len()
		}
	}
	if from < 0 {
		from, to = text.Len(), text.Len()+len(r.Key)
		text.Write(r.Key)
	}
	values = text.String()
	return values, values[from:to]
}

// decode makes the id and the metadata of a record, whose values were read. It
// takes every record: what it makes no sense of is for the subscriber to judge.
func decode(r *kgo.Record, values string) (id string, metadata message.Metadata) {
	metadata = make(message.Metadata, len(r.Headers))
	for i := range r.Headers {
		h := &r.Headers[i]
		value := values[:len(h.Value)]
		values = values[len(h.Value):]
		if h.Key == headerUUID {
			id = value
			continue
		}
		metadata[h.Key] = value
	}
	return id, metadata
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

// sizeOf returns about how much memory r holds, and a copy of what read returns.
func sizeOf(r *kgo.Record) int64 {
	n := 128 + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += 48 + len(r.Headers[i].Key) + 2*len(r.Headers[i].Value)
	}
	return int64(n)
}
