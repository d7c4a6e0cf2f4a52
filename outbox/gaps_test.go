package outbox

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the files in testdata")

var goldenGaps = []struct {
	name string
	gaps gaps
}{
	{"none", nil},
	{"one", gaps{{from: 7, to: 7}}},
	{"several", gaps{{from: 1, to: 3}, {from: 5, to: 5}, {from: 1 << 40, to: 1<<40 + 1000}}},
}

// What a version has written every later one can read.
func TestGapsGolden(t *testing.T) {
	for _, c := range goldenGaps {
		file := filepath.Join("testdata", "v1", "gaps-"+c.name)
		if *update {
			require.NoError(t, os.WriteFile(file, c.gaps.encode(), 0o644))
		}
		stored, err := os.ReadFile(file)
		require.NoError(t, err)
		got, err := decodeGaps(stored)
		require.NoError(t, err)
		require.Equal(t, c.gaps, got, c.name)
		require.True(t, bytes.Equal(stored, c.gaps.encode()), "what is written has changed: that takes a new version")
	}
}

func FuzzDecodeGaps(f *testing.F) {
	for _, c := range goldenGaps {
		f.Add(c.gaps.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := decodeGaps(b)
		if err != nil {
			require.ErrorIs(t, err, errGaps)
			return
		}
		end := int64(0)
		for _, s := range g {
			require.Greater(t, s.from, end)
			require.GreaterOrEqual(t, s.to, s.from)
			end = s.to
		}
		again, err := decodeGaps(g.encode())
		require.NoError(t, err)
		require.Equal(t, g, again)
	})
}

func TestSpansSplitAndShrink(t *testing.T) {
	g := gaps{{from: 1, to: 5, bound: 9}, {from: 8, to: 8}}
	require.False(t, g.remove(6))
	require.True(t, g.remove(3))
	require.Equal(t, gaps{{from: 1, to: 2, bound: 9}, {from: 4, to: 5, bound: 9}, {from: 8, to: 8}}, g)
	require.Equal(t, gaps{{from: 1, to: 2, bound: 9}, {from: 4, to: 4, bound: 9}}, g.upTo(4))
	require.Equal(t, gaps{{from: 1, to: 2, bound: 9}, {from: 4, to: 5, bound: 9}, {from: 8, to: 8}}, g, "upTo leaves it as it is")
	for _, p := range []int64{1, 5, 8, 2, 4} {
		require.True(t, g.remove(p))
	}
	require.Empty(t, g)
	require.Equal(t, gaps{{from: 2, to: 4}}, gaps{{from: 2, to: 2}, {from: 4, to: 4}}.with([]int64{3}))
}

// What is written down must tell, at any moment, every position below the
// published one that is not published, or a crash would lose it.
func TestCursorAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		last := rapid.Int64Range(1, 60).Draw(t, "last")
		c := newCursor(0, nil)
		hidden := map[int64]bool{} // not committed yet
		for p := range last {
			hidden[p+1] = rapid.Bool().Draw(t, "hidden")
		}
		taken := map[int64]bool{}
		var order []int64 // positions by their number
		published := map[int64]bool{}
		check := func(passed int64) {
			at, left := c.pass(passed)
			for _, p := range order[:passed] {
				published[p] = true
			}
			for p := int64(1); p <= at; p++ {
				_, missing := left.find(p)
				if !published[p] {
					require.True(t, missing, "position %d is neither published nor among what is left %v of %d", p, left, at)
				}
			}
			for p := range published {
				_, missing := left.find(p)
				require.True(t, p <= at && !missing, "position %d is published and would be again", p)
			}
			decoded, err := decodeGaps(left.encode())
			require.NoError(t, err)
			require.Len(t, decoded, len(left))
		}
		passed := int64(0)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0: // a transaction commits
				for p, h := range hidden {
					if h && rapid.Bool().Draw(t, "commits") {
						hidden[p] = false
					}
				}
			case 1: // a read finds what is visible: late rows, then some new ones
				frontier, missing := c.where()
				limit := rapid.Int64Range(0, last).Draw(t, "limit")
				for p := int64(1); p <= last && p <= frontier+limit; p++ {
					_, asked := missing.find(p)
					if hidden[p] || taken[p] || p <= frontier && !asked {
						continue
					}
					taken[p] = true
					order = append(order, p)
					require.EqualValues(t, len(order), c.take([]*row{{position: p}}))
				}
			case 2: // the watermark moves
				passed = rapid.Int64Range(passed, int64(len(order))).Draw(t, "passed")
				check(passed)
			}
		}
		check(int64(len(order)))
		frontier, missing := c.where()
		for p := int64(1); p <= frontier; p++ {
			_, in := missing.find(p)
			require.NotEqual(t, taken[p], in, "position %d", p)
		}
		require.True(t, slices.IsSortedFunc(missing, func(a, b span) int { return int(a.from - b.from) }))
	})
}
