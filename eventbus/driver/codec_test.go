package driver_test

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/millrace-go/millrace/eventbus/driver"
)

var goldenMetadata = message.Metadata{
	"ce_id":           "0198c5a1-7a3e-7cc3-98f5-1f0a53f4c9a1",
	"ce_partitionkey": "order-4711",
	"":                "empty name",
	"empty value":     "",
	"binary":          "\x00\xff\xfe",
}

// goldens are what the outbox and sqlbus wrote when each had code of its own.
var goldens = map[string]message.Metadata{
	"testdata/v1/metadata.hex": goldenMetadata,
	"testdata/v1/metadata_sqlbus.hex": {
		"":                "empty key",
		"bin\x00\xff\xfe": "\x00\x01\x80\xff",
		"ce_partitionkey": "order-1",
		"empty":           "",
		"utf-8 é":         "Straße",
	},
}

// What version 1 wrote must be readable for ever.
func TestMetadataGolden(t *testing.T) {
	for file, want := range goldens {
		golden, err := os.ReadFile(file)
		require.NoError(t, err)
		b, err := hex.DecodeString(strings.TrimSpace(string(golden)))
		require.NoError(t, err)
		require.Equal(t, b, driver.EncodeMetadata(want))
		got, err := driver.DecodeMetadata(b)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
}

func TestMetadataOfAnyBytesSurvives(t *testing.T) {
	text := rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })
	rapid.Check(t, func(t *rapid.T) {
		m := message.Metadata(rapid.MapOf(text, text).Draw(t, "metadata"))
		m["skipped"] = "x"
		got, err := driver.DecodeMetadata(driver.EncodeMetadata(m, "skipped"))
		if err != nil {
			t.Fatal(err)
		}
		delete(m, "skipped")
		require.Equal(t, m, got)
	})
}

func TestDamagedMetadataIsRefused(t *testing.T) {
	for b, want := range map[string]string{
		"":                           "stored metadata is damaged: it is empty",
		"\x02\x00":                   "stored metadata has version 2, this program reads version 1: upgrade it",
		"\x01\x09":                   "stored metadata is damaged: number of pairs",
		"\x01\x00x":                  "stored metadata is damaged: length",
		"\x01":                       "stored metadata is damaged: length",
		"\x01\x80\x00":               "stored metadata is damaged: length",
		"\x01\x01\x01a":              "stored metadata is damaged: pair 1 of 1",
		"\x01\x02\x01b\x00\x01":      "stored metadata is damaged: pair 2 of 2",
		"\x01\x02\x01b\x00\x01a\x00": "stored metadata is damaged: pair 2 of 2",
	} {
		_, err := driver.DecodeMetadata([]byte(b))
		require.EqualError(t, err, want, "%q", b)
	}
}

func FuzzDecodeMetadata(f *testing.F) {
	f.Add(driver.EncodeMetadata(goldenMetadata))
	f.Add(driver.EncodeMetadata(nil))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := driver.DecodeMetadata(b)
		if err != nil {
			return
		}
		require.Equal(t, b, driver.EncodeMetadata(m), "there is one way to write metadata")
	})
}
