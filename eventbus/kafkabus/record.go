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

// reader reads the headers of several records into one string: they lie far apart
// in what was fetched, so it takes long to come to the first byte of each, unless the
// processor can look for many at a time.
type reader struct {
	text  []byte
	reads []extent
}

// extent is where in the text what was read of a record is. The key may lie within the values.
type extent struct{ from, to, key, keyTo int }

// most of what a reader reads into one string. Who keeps one value keeps no more
// than that, and what the last record brought.
const (
	readRecords = 16
	readBytes   = 2 << 10
)

// read reads the first of records, at least one, and returns how many those are.
func (rd *reader) read(records []*kgo.Record) (n int, text string) {
	rd.text, rd.reads = rd.text[:0], rd.reads[:0]
	for n < min(len(records), readRecords) && len(rd.text) < readBytes {
		rd.add(records[n])
		n++
	}
	return n, string(rd.text)
}

// add reads the values of all headers of r, one after the other, and the key by
// which it is ordered. A record that was not published by this library is ordered by
// its own key.
func (rd *reader) add(r *kgo.Record) {
	x := extent{from: len(rd.text), key: -1}
	for i := range r.Headers {
		h := &r.Headers[i]
		if h.Key == driver.MetadataKey { // as in metadata, the last counts
			x.key, x.keyTo = len(rd.text), len(rd.text)+len(h.Value)
		}
		rd.text = append(rd.text, h.Value...)
	}
	x.to = len(rd.text)
	if x.key < 0 {
		x.key, x.keyTo = x.to, x.to+len(r.Key)
		rd.text = append(rd.text, r.Key...)
	}
	rd.reads = append(rd.reads, x)
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
