package idempotency_test

import (
	"encoding/hex"
	"flag"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
)

var update = flag.Bool("update-stored", false, "write testdata/v1 anew, for a format that was never released")

func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", "v1", name)
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o600))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	return want
}

// What was stored is read by every later version: a rolling deployment has both.
func TestStoredFormatsOfVersion1(t *testing.T) {
	header := map[string][]string{"Content-Type": {"text/plain; charset=utf-8"}, "Vary": {"Accept", "Origin"}}
	written, err := idempotency.EncodeResponse(201, header, []byte("line one\nline two \x00\xff"))
	require.NoError(t, err)
	status, gotHeader, body, err := idempotency.DecodeResponse(golden(t, "http-response", written))
	require.NoError(t, err)
	require.Equal(t, 201, status)
	require.Equal(t, header, gotHeader)
	require.Equal(t, "line one\nline two \x00\xff", string(body))

	var hashes strings.Builder
	for _, k := range []idempotency.Key{{Scope: "charge", ID: "order-7"}, {Scope: "a", ID: "bc"}, {Scope: "ab", ID: "c"}, {Scope: "s", ID: strings.Repeat("x", 300)}} {
		sum := k.Hash()
		hashes.WriteString(hex.EncodeToString(sum[:]) + "\n")
	}
	require.Equal(t, string(golden(t, "key-hashes", []byte(hashes.String()))), hashes.String(), "a key that hashes otherwise is forgotten")

	store := idempotency.NewMemoryStore(idempotency.MemoryConfig{})
	g := newGuard(store, idempotency.Policy{})
	_, _, err = idempotency.Do(t.Context(), g, orderKey, answer(map[string]int{"cents": 42}))
	require.NoError(t, err)
	stored := read(t, store)
	require.NoError(t, complete(t, store, "golden", golden(t, "do-result", stored)))
	v, replayed, err := idempotency.Do(t.Context(), g, idempotency.Key{Scope: "charge", ID: "golden"}, answer(map[string]int{}))
	require.NoError(t, err)
	require.True(t, replayed)
	require.Equal(t, map[string]int{"cents": 42}, v)
}

// read returns what is stored under orderKey.
func read(t *testing.T, s idempotency.Store) []byte {
	t.Helper()
	r, err := s.Claim(t.Context(), idempotency.ClaimRequest{Key: orderKey, Lease: time.Hour, Keep: time.Hour})
	require.NoError(t, err)
	require.Equal(t, idempotency.StateDone, r.State)
	return r.Result
}

func complete(t *testing.T, s idempotency.Store, id string, result []byte) error {
	t.Helper()
	r, err := s.Claim(t.Context(), idempotency.ClaimRequest{Key: idempotency.Key{Scope: "charge", ID: id}, Lease: time.Hour, Keep: time.Hour})
	require.NoError(t, err)
	return s.Complete(t.Context(), r.Claim, result, time.Hour)
}

func TestResultOfALaterVersionIsNotTakenForSomethingElse(t *testing.T) {
	store := idempotency.NewMemoryStore(idempotency.MemoryConfig{})
	g := newGuard(store, idempotency.Policy{})
	for id, stored := range map[string][]byte{"empty": {}, "later": {9, 'x'}, "zero": {0}} {
		require.NoError(t, complete(t, store, id, stored))
		_, _, err := idempotency.Do(t.Context(), g, idempotency.Key{Scope: "charge", ID: id}, must(t))
		require.ErrorIs(t, err, idempotency.ErrNoResult, id)
	}
}

func FuzzDecodeResponse(f *testing.F) {
	seed, err := idempotency.EncodeResponse(200, map[string][]string{"A": {"b"}}, []byte("body"))
	require.NoError(f, err)
	f.Add(seed)
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Add([]byte("\x01{}\n"))
	f.Add([]byte("\x01{\"status\":99}\n"))
	f.Fuzz(func(t *testing.T, stored []byte) {
		status, header, body, err := idempotency.DecodeResponse(stored)
		if err != nil {
			require.ErrorIs(t, err, idempotency.ErrNoResult)
			return
		}
		again, err := idempotency.EncodeResponse(status, header, body)
		require.NoError(t, err)
		s, h, b, err := idempotency.DecodeResponse(again)
		require.NoError(t, err)
		require.Equal(t, status, s)
		require.Equal(t, len(header), len(h))
		require.Equal(t, body, b)
		// Whatever was stored can be sent.
		w := httptest.NewRecorder()
		w.WriteHeader(status)
	})
}

func FuzzParseKey(f *testing.F) {
	for _, seed := range []string{"k", `"k"`, `"a\"b\\"`, `"k";p=1`, `"`, `"\`, " k ", "8e03978e-40d5-43dd-bc93-6894a57f9324", `"a b"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		key, err := idempotency.ParseKey(value, 40)
		if err != nil {
			require.Empty(t, key)
			return
		}
		require.NotEmpty(t, key)
		require.LessOrEqual(t, len(key), 40)
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		again, err := idempotency.ParseKey(quoted, 40)
		require.NoError(t, err)
		require.Equal(t, key, again, "the quoted form is the same key")
	})
}

func TestParseKey(t *testing.T) {
	for value, want := range map[string]string{
		"k": "k", " k\t": "k", `"k"`: "k", `"k";a=1;b`: "k", `"k" ;a`: "k", `"a b"`: "a b", `"a\"\\"`: `a"\`, "a:b/c=d": "a:b/c=d",
	} {
		got, err := idempotency.ParseKey(value, 40)
		require.NoError(t, err, value)
		require.Equal(t, want, got, value)
	}
	for _, bad := range []string{"", `""`, `"`, `"\`, `"a\b"`, `"a"b`, `a"b`, "a b", "a;b", "a,b", "ä", `"ä"`, "a\x00", "\"a\tb\"", strings.Repeat("k", 41)} {
		_, err := idempotency.ParseKey(bad, 40)
		require.Error(t, err, bad)
	}
}
