package outbox_test

import (
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/millrace-go/millrace/outbox"
)

var goldenMetadata = map[string]string{
	"ce_id":           "0198c5a1-7a3e-7cc3-98f5-1f0a53f4c9a1",
	"ce_partitionkey": "order-4711",
	"":                "empty name",
	"empty value":     "",
	"binary":          "\x00\xff\xfe",
}

// What version 1 wrote must be readable for ever.
func TestMetadataGolden(t *testing.T) {
	const path = "testdata/v1/metadata.hex"
	encoded := hex.EncodeToString(outbox.EncodeMetadata(nil, goldenMetadata, "none")) + "\n"
	if os.Getenv("MILLRACE_UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(path, []byte(encoded), 0o644))
	}
	golden, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(golden), encoded)
	b, err := hex.DecodeString(strings.TrimSpace(string(golden)))
	require.NoError(t, err)
	got, err := outbox.DecodeMetadata(b)
	require.NoError(t, err)
	require.Equal(t, goldenMetadata, got)
}

func TestMetadataOfAnyBytesSurvives(t *testing.T) {
	text := rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.MapOf(text, text).Draw(t, "metadata")
		m["skipped"] = "x"
		got, err := outbox.DecodeMetadata(outbox.EncodeMetadata(nil, m, "skipped"))
		if err != nil {
			t.Fatal(err)
		}
		delete(m, "skipped")
		require.Equal(t, m, got)
	})
}

func FuzzDecodeMetadata(f *testing.F) {
	f.Add(outbox.EncodeMetadata(nil, goldenMetadata, ""))
	f.Add([]byte{1, 0})
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := outbox.DecodeMetadata(b)
		if err != nil {
			return
		}
		again, err := outbox.DecodeMetadata(outbox.EncodeMetadata(nil, m, "\x00 none"))
		require.NoError(t, err)
		delete(m, "\x00 none")
		require.Equal(t, m, again)
	})
}
