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
		values, gotKey := read(r)
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
