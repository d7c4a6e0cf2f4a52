package kafkabus

import (
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func FuzzDecode(f *testing.F) {
	f.Add("k", "v", "id", "ce_partitionkey", "key")
	f.Add("", "", "", "", "")
	f.Fuzz(func(t *testing.T, key, value, id, name, text string) {
		r := &kgo.Record{Key: []byte(key), Value: []byte(value), Headers: []kgo.RecordHeader{{Key: name, Value: []byte(text)}, {Key: headerUUID, Value: []byte(id)}}}
		values, gotKey := readOne(r)
		gotID, metadata := decode(r, values)
		require.Equal(t, id, gotID)
		if name != headerUUID {
			require.Equal(t, message.Metadata{name: text}, metadata)
		}
		want := key
		if name == driver.MetadataKey {
			want = text
		}
		require.Equal(t, want, gotKey)
		copied := detached(r)
		require.Equal(t, fmt.Sprint(r), fmt.Sprint(copied))
		require.Equal(t, sizeOf(r), sizeOf(copied))
	})
}

// readOne reads r alone.
func readOne(r *kgo.Record) (values, key string) {
	var rd reader
	_, text := rd.read([]*kgo.Record{r})
	x := rd.reads[0]
	return text[x.from:x.to], text[x.key:x.keyTo]
}

func TestReaderReadsSomeAtATimeAsIfOneByOne(t *testing.T) {
	var records []*kgo.Record
	for i := range 10 * readRecords {
		r := &kgo.Record{Key: []byte(fmt.Sprint("own ", i)), Headers: []kgo.RecordHeader{{Key: headerUUID, Value: []byte(fmt.Sprint("id ", i))}}}
		if i%3 > 0 {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: driver.MetadataKey, Value: []byte(fmt.Sprint("key ", i))})
		}
		if i > 8*readRecords {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "large", Value: make([]byte, readBytes/4)})
		}
		records = append(records, r)
	}
	var rd reader
	for len(records) > 0 {
		n, text := rd.read(records)
		require.LessOrEqual(t, n, readRecords)
		require.Less(t, len(text), 2*readBytes)
		require.Len(t, rd.reads, n)
		for i, x := range rd.reads {
			values, key := readOne(records[i])
			require.Equal(t, values, text[x.from:x.to])
			require.Equal(t, key, text[x.key:x.keyTo])
		}
		records = records[n:]
	}
}
