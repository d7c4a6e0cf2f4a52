package sqlbus

import (
	"context"
	"database/sql"
	"math"
	"slices"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// overdue as consumer.nextDue: there may be redeliveries that are due already.
const overdue = 0

// idleWait bounds how long the feeder sleeps without being poked.
var idleWait = time.Second

const (
	// maxTail is how many events a scan for news looks at.
	maxTail = 256
	// feedBackoff is the longest wait after failures to read.
	feedBackoff = 2 * time.Second
)

// feed reads events and adds them to the lanes until ctx ends.
func (c *consumer) feed(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		found, err := c.read(ctx)
		switch {
		case err != nil:
			c.complain("events could not be read", err)
			failures++
			pause := min(10*time.Millisecond<<min(failures, 10), feedBackoff)
			wait(ctx, nil, jitter(pause))
			continue
		case found == starved && !c.hungry.Swap(true):
			continue // look again: what was done until now poked nobody
		case found == enough:
			c.hungry.Store(false)
		default:
			wait(ctx, c.awake, c.untilDue())
		}
		failures = 0
	}
}

func (c *consumer) untilDue() time.Duration {
	switch next := c.nextDue.Load(); next {
	case math.MaxInt64:
		return idleWait
	case overdue:
		return 20 * time.Millisecond
	default:
		return max(min(time.Until(time.UnixMicro(next)), idleWait), time.Millisecond)
	}
}

// found is how a read ended.
type found int

const (
	nothing found = iota // all is read
	enough               // reading on at once is worth it
	starved              // there may be more, but no room for it
)

// read adds what fits.
func (c *consumer) read(ctx context.Context) (found, error) {
	b := budget{records: c.limit - c.queue.Len(), bytes: maxBytes}
	for _, p := range c.partitions() {
		b.bytes -= p.bytes.Load()
	}
	if b.records < c.limit/4 || b.bytes <= 0 {
		return starved, nil
	}
	if err := c.readDue(ctx, &b); err != nil {
		return nothing, err
	}
	if err := c.scanTail(); err != nil {
		return nothing, err
	}
	parts, starving := c.readable()
	share, more := max(1, b.records/max(1, len(parts))), false
	for _, p := range parts { // in the random order of a map: none is always last
		if err := c.readPartition(ctx, p, min(share, c.limit/2-int(p.held.Load())), &b); err != nil {
			return nothing, err
		}
		more = more || p.news
	}
	switch {
	case b.empty() || starving && !more:
		return starved, nil
	case more:
		return enough, nil
	}
	return nothing, nil
}

// budget is what may still be read.
type budget struct {
	records int
	bytes   int64
}

func (b *budget) take(r *record) {
	b.records--
	b.bytes -= r.size
}

func (b *budget) empty() bool { return b.records <= 0 || b.bytes <= 0 }

// scanTail notes which partitions got events since the last scan. When those
// are many it saves itself the trouble: all partitions may have got some.
func (c *consumer) scanTail() error {
	var news []int
	n, last := 0, c.scanned
	d := c.b.store.dialect
	err := c.b.store.read.each(d.tail, d.of(c.sub.Topic, c.scanned, maxTail),
		func(rows *sql.Rows) (bool, error) {
			var topic string
			var partition int
			err := rows.Scan(&last, &topic, &partition)
			if topic == c.sub.Topic {
				news = append(news, partition)
			}
			n++
			return n < maxTail, err
		})
	if err == nil && n == maxTail {
		last, _, err = c.b.newest(c.b.store.read, c.sub.Topic)
	}
	if err != nil {
		return err
	}
	c.scanned = last
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.owned {
		p.news = p.news || n == maxTail || slices.Contains(news, p.number)
	}
	return nil
}

// readable returns the partitions that have something to read and room for it;
// starving says that others have no room. No partition may take more than half
// of the room, so that a key with a long queue leaves some to others.
func (c *consumer) readable() (parts []*partition, starving bool) {
	for _, p := range c.partitions() {
		switch {
		case !p.news || p.sealed():
		case c.full(p):
			starving = true
		default:
			parts = append(parts, p)
		}
	}
	return parts, starving
}

func (c *consumer) full(p *partition) bool { return p.full(int64(c.limit / 2)) }

// readPartition adds the next events of p from the log, but for the exceptions.
func (c *consumer) readPartition(ctx context.Context, p *partition, limit int, b *budget) error {
	if b.empty() {
		return nil
	}
	n := 0
	err := c.b.store.read.each(`SELECT position, "key", id, metadata, payload FROM millrace_events AS e
WHERE topic = ? AND "partition" = ? AND position > ? AND NOT EXISTS (
	SELECT 1 FROM millrace_exceptions AS x WHERE x.topic = ? AND x.group_name = ? AND x.position = e.position
) ORDER BY position {limit}`,
		[]any{c.sub.Topic, p.number, p.read, c.sub.Topic, c.sub.Group, limit},
		func(rows *sql.Rows) (bool, error) {
			r := &record{part: p, attempt: 1}
			var metadata []byte
			if err := rows.Scan(&r.position, &r.key, &r.id, &metadata, &r.payload); err != nil {
				return false, err
			}
			n++
			return c.add(ctx, r, metadata, b) && n < limit, nil
		})
	p.news = err != nil || n == limit || b.empty()
	return err
}

// add puts a record into its lane. It returns false when no more is to be added.
func (c *consumer) add(ctx context.Context, r *record, metadata []byte, b *budget) bool {
	r.size = int64(len(metadata) + len(r.payload))
	c.decode(r, metadata)
	if err := r.part.lane.Add(ctx, r.key, r.part.next(r), r.attempt, r); err != nil {
		return false // revoked: whoever owns the partition next reads on
	}
	b.take(r)
	return !b.empty()
}

// decode never loses an event to damaged metadata: the subscriber, who can tell
// that attributes are missing, decides what becomes of it.
func (c *consumer) decode(r *record, metadata []byte) {
	m, err := driver.DecodeMetadata(metadata)
	if err != nil {
		c.log.Error("sqlbus: the event is delivered without metadata", "event_id", r.id, "position", r.position, "error", err)
		m = map[string]string{}
	}
	r.metadata = m
}
