package outbox

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// cursor knows how far the log has been read and how far it is published. Rows
// are numbered in the order in which they were read, because late ones have
// positions below those of rows before them; the dispatcher's watermark counts
// in these numbers.
type cursor struct {
	gapless bool // positions are commit order: what is missing stays so

	mu       sync.Mutex
	frontier int64 // the highest position that was read
	missing  gaps  // positions below it that were not there
	read     int64 // the number of the last row

	positions []int64            // of the rows with numbers from passed+1 on
	passed    int64              // the number of the last row that is published and recorded in what follows
	published int64              // the highest position among those
	late      map[int64]struct{} // rows that were read late and are not passed
}

func newCursor(published int64, missing gaps) *cursor {
	return &cursor{frontier: published, published: published, missing: missing, late: map[int64]struct{}{}}
}

// take numbers rows that were read, and returns the number of the first. Missing
// positions before them are remembered unless the log has no gaps by its nature.
func (c *cursor) take(rows []*row) (first int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first = c.read + 1
	for _, r := range rows {
		c.add(r.position)
	}
	return first
}

func (c *cursor) add(position int64) {
	if position > c.frontier {
		if position > c.frontier+1 && !c.gapless {
			c.missing.add(span{from: c.frontier + 1, to: position - 1, seen: time.Now()})
		}
		c.frontier = position
	} else {
		c.missing.remove(position)
		c.late[position] = struct{}{}
	}
	c.positions = append(c.positions, position)
	c.read++
}

// where returns what the next read is about.
func (c *cursor) where() (frontier int64, missing gaps) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frontier, slices.Clone(c.missing)
}

// edit changes what is missing.
func (c *cursor) edit(f func(*gaps)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.missing)
}

// pass records that all rows up to a number are published, and returns what to
// write down: every position up to published is, except those of left.
func (c *cursor) pass(number int64) (published int64, left gaps) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := number - c.passed
	for _, p := range c.positions[:n] {
		if p > c.published {
			c.published = p
		} else {
			delete(c.late, p)
		}
	}
	c.positions = c.positions[n:]
	c.passed = number
	var ahead []int64
	if len(c.late) > 0 {
		ahead = slices.DeleteFunc(slices.Collect(maps.Keys(c.late)), func(p int64) bool { return p > c.published })
	}
	return c.published, slices.Clone(c.missing.upTo(c.published)).with(ahead)
}
