package outbox

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzUnpack(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01idtmpayload"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, columns, err := unpack(b)
		if err != nil {
			return
		}
		n := packedHead
		for _, c := range columns {
			n += len(c)
		}
		require.Len(t, b, n)
	})
}

func TestUnpack(t *testing.T) {
	position, columns, err := unpack([]byte("\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01idtmpayload"))
	require.NoError(t, err)
	require.EqualValues(t, 7, position)
	require.Equal(t, [5][]byte{[]byte("id"), []byte("t"), {}, []byte("m"), []byte("payload")}, columns)
	_, _, err = unpack([]byte("short"))
	require.ErrorIs(t, err, errPacked)
}
