package sqlbus

import (
	"os"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
)

var goldenMetadata = message.Metadata{
	"":                "empty key",
	"bin\x00\xff\xfe": "\x00\x01\x80\xff",
	"ce_partitionkey": "order-1",
	"empty":           "",
	"utf-8 é":         "Straße",
}

func TestMetadataGoldenV1(t *testing.T) {
	golden, err := os.ReadFile("testdata/v1/metadata.bin")
	require.NoError(t, err)
	m, err := decodeMetadata(golden)
	require.NoError(t, err)
	require.Equal(t, goldenMetadata, m)
	require.Equal(t, golden, encodeMetadata(goldenMetadata))
}

func TestPartitionOfIsAStoredFormat(t *testing.T) {
	for key, partition := range map[string]int{"order-1": 13, "a": 12, "\xff\x00": 10} {
		require.Equal(t, partition, partitionOf(key, 32), "key %q", key)
	}
}

func TestDamagedMetadataIsRefused(t *testing.T) {
	for name, b := range map[string]string{
		"empty":           "",
		"unknown version": "\x02\x00",
		"no count":        "\x01",
		"too many":        "\x01\xff\xff\xff\xff\x0f",
		"cut":             "\x01\x01\x01k\x05v",
		"rest":            "\x01\x00x",
		"order":           "\x01\x02\x01b\x00\x01a\x00",
		"twice":           "\x01\x02\x01a\x00\x01a\x00",
		"long number":     "\x01\x80\x00",
	} {
		_, err := decodeMetadata([]byte(b))
		require.ErrorIs(t, err, errMetadata, name)
	}
}

func FuzzDecodeMetadata(f *testing.F) {
	f.Add(encodeMetadata(nil))
	f.Add(encodeMetadata(goldenMetadata))
	f.Add([]byte("\x01\x02\x01a\x00\x01b"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMetadata(b)
		if err != nil {
			return
		}
		require.Equal(t, b, encodeMetadata(m), "there is one way to write metadata")
	})
}
