package marks_test

import (
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/millrace-go/millrace/idempotency/internal/marks"
)

// Recent is the last distinct ones that were added, in the order of their
// first coming.
func TestRecentAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(0, 5).Draw(t, "size")
		recent := marks.NewRecent(size)
		var model []string
		for _, id := range rapid.SliceOf(rapid.StringMatching("[a-h]")).Draw(t, "ids") {
			known := false
			for _, m := range model {
				known = known || m == id
			}
			d := marks.Key{Consumer: "c", ID: id}.Digest()
			if recent.Has(d) != known {
				t.Fatalf("%s: known %v, the model says %v", id, !known, known)
			}
			recent.Add(d)
			if !known && size > 0 {
				model = append(model, id)
				model = model[max(0, len(model)-size):]
			}
		}
	})
}

func TestRecentUnderConcurrency(t *testing.T) {
	recent := marks.NewRecent(64)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 1000 {
				d := marks.Key{Consumer: strconv.Itoa(w), ID: strconv.Itoa(i)}.Digest()
				recent.Add(d)
				recent.Has(d)
			}
		})
	}
	wg.Wait()
	var zero marks.Recent
	zero.Add(marks.Digest{})
	require.False(t, zero.Has(marks.Digest{}))
}

// Moving a byte from one part of a key to the next makes another key.
func TestDigestsAndStoredFormsDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.StringMatching("[ab]{0,3}"), rapid.StringMatching("(sha256:)?[a-f0-9]{64}"), rapid.StringN(0, 300, 1000))
		key := func(name string) marks.Key {
			return marks.Key{Consumer: text.Draw(t, name+" consumer"), Source: text.Draw(t, name+" source"), ID: text.Draw(t, name+" id")}
		}
		a, b := key("a"), key("b")
		if (a == b) != (a.Digest() == b.Digest()) || (a == b) != (a.Stored() == b.Stored()) {
			t.Fatalf("%q and %q are told apart wrongly", a, b)
		}
		for _, s := range []string{a.Stored().Consumer, a.Stored().Source, a.Stored().ID} {
			if len(s) > 255 {
				t.Fatalf("%d bytes", len(s))
			}
		}
	})
}

func FuzzStored(f *testing.F) {
	f.Add("a", "a ")
	f.Add("sha256:", "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := marks.Key{ID: a}.Stored().ID, marks.Key{ID: b}.Stored().ID
		require.Equal(t, a == b, x == y)
		require.LessOrEqual(t, len(x), 255)
	})
}
