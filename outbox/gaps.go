package outbox

import (
	"encoding/binary"
	"errors"
	"slices"
	"sort"
	"time"
)

// Positions are handed out before transactions commit, so a reader finds some
// missing: their transactions are still open, or were rolled back. The relay
// publishes what it sees at once, remembers what was missing below it, looks for
// that at every read, and forgets it when it can't appear any more. (Axon's
// GapAwareTrackingToken is the best-known form of this.) Who may forget what,
// and when, is the business of gapspostgres.go and gapsmysql.go.

// span is a run of missing positions, first and last included.
type span struct {
	from, to int64
	// bound is an id of a transaction that began after the span was seen, 0 if
	// there is none yet. PostgreSQL only.
	bound int64
	// seen is since when this relay knows the span to be missing, or when it last
	// found rows of an open transaction in it. suspected is since when it finds none,
	// 0 if it has not looked yet or did find some. MySQL only.
	seen, suspected time.Time
}

// gaps are spans in rising order.
type gaps []span

// add appends a span behind all others.
func (g *gaps) add(s span) { *g = append(*g, s) }

// find returns the index of the span that holds position, or ok = false.
func (g gaps) find(position int64) (i int, ok bool) {
	i = sort.Search(len(g), func(i int) bool { return g[i].to >= position })
	return i, i < len(g) && g[i].from <= position
}

// remove takes one position out, and reports whether it was in.
func (g *gaps) remove(position int64) bool {
	i, ok := g.find(position)
	if !ok {
		return false
	}
	s := &(*g)[i]
	switch {
	case s.from == s.to:
		*g = slices.Delete(*g, i, i+1)
	case position == s.from:
		s.from++
	case position == s.to:
		s.to--
	default:
		rest := *s
		rest.from = position + 1
		s.to = position - 1
		*g = slices.Insert(*g, i+1, rest)
	}
	return true
}

// upTo returns the part at or below position.
func (g gaps) upTo(position int64) gaps {
	i := sort.Search(len(g), func(i int) bool { return g[i].to > position })
	if i == len(g) || g[i].from > position {
		return g[:i:i]
	}
	part := append(g[:i:i], g[i])
	part[i].to = position
	return part
}

// with returns the spans with further positions, which are not in g.
func (g gaps) with(positions []int64) gaps {
	if len(positions) == 0 {
		return g
	}
	all := slices.Clone(g)
	for _, p := range positions {
		all = append(all, span{from: p, to: p})
	}
	slices.SortFunc(all, func(a, b span) int { return int(min(1, max(-1, a.from-b.from))) })
	joined := all[:1]
	for _, s := range all[1:] {
		if last := &joined[len(joined)-1]; last.to+1 == s.from {
			last.to = s.to
		} else {
			joined = append(joined, s)
		}
	}
	return joined
}

const gapsVersion = 1

// encode returns the bytes kept in the relay's row: nothing if there are no
// gaps, else a version, the number of spans, and for each how far it begins
// behind the end of the one before and how many positions follow its first.
func (g gaps) encode() []byte {
	if len(g) == 0 {
		return []byte{}
	}
	b := make([]byte, 0, 8+4*len(g))
	b = append(b, gapsVersion)
	b = binary.AppendUvarint(b, uint64(len(g)))
	end := int64(0)
	for _, s := range g {
		b = binary.AppendUvarint(b, uint64(s.from-end))
		b = binary.AppendUvarint(b, uint64(s.to-s.from))
		end = s.to
	}
	return b
}

var errGaps = errors.New("the gaps in the relay's row can't be decoded")

// decodeGaps reads what encode wrote.
func decodeGaps(b []byte) (gaps, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if b[0] != gapsVersion {
		return nil, errGaps
	}
	b = b[1:]
	next := func() (int64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > 1<<62 {
			return 0, false
		}
		b = b[n:]
		return int64(v), true
	}
	count, ok := next()
	if !ok || count == 0 || count > int64(len(b)) {
		return nil, errGaps
	}
	g := make(gaps, 0, count)
	end := int64(0)
	for range count {
		skip, ok1 := next()
		more, ok2 := next()
		from, to := end+skip, end+skip+more
		if !ok1 || !ok2 || skip == 0 || from < end || to < from {
			return nil, errGaps
		}
		g = append(g, span{from: from, to: to})
		end = to
	}
	if len(b) != 0 {
		return nil, errGaps
	}
	return g, nil
}
