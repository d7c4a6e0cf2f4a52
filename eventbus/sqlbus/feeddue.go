package sqlbus

import (
	"context"
	"database/sql"
	"maps"
	"math"
	"slices"
	"time"
)

// readDue adds the redeliveries that are due. It asks the file only when
// nextDue says that there may be any.
func (c *consumer) readDue(ctx context.Context, b *budget) error {
	now := time.Now().UnixMicro()
	if c.nextDue.Load() > now {
		return nil
	}
	// Before the partitions are listed and the table is read: whatever is added
	// to either meanwhile lowers it again.
	c.nextDue.Store(math.MaxInt64)
	all, err := c.readDueRows(ctx, c.partitions(), b, now)
	if err != nil || !all {
		c.nextDue.Store(overdue)
		return err
	}
	next, ok, err := c.b.file.read.number("SELECT min(due_at) FROM millrace_exceptions WHERE topic = ? AND group_name = ? AND due_at > ?", c.sub.Topic, c.sub.Group, now)
	if err != nil {
		c.nextDue.Store(overdue)
		return err
	}
	if ok {
		c.expect(next)
	}
	return nil
}

// readDueRows adds what fits and reports whether that is all. It holds c.hands:
// a redelivery that is taken out of hand while this looks at an older state of
// the table would be delivered twice.
func (c *consumer) readDueRows(ctx context.Context, parts []*partition, b *budget, now int64) (all bool, err error) {
	c.hands.Lock()
	defer c.hands.Unlock()
	byNumber := make(map[int]*partition, len(parts))
	limit, n, full := b.records, 0, false
	for _, p := range parts {
		if c.full(p) {
			full = true
			continue
		}
		byNumber[p.number] = p
		limit += p.hands()
	}
	if len(byNumber) == 0 {
		return !full, nil
	}
	numbers := slices.Collect(maps.Keys(byNumber))
	err = c.b.file.read.each(`SELECT r.partition, r.position, r.attempt, e.key, e.id, e.metadata, e.payload
FROM millrace_exceptions AS r JOIN millrace_events AS e ON e.position = r.position
WHERE r.topic = ? AND r.group_name = ? AND r.due_at <= ? AND r.partition IN (SELECT value FROM json_each(?))
ORDER BY r.due_at`,
		[]any{c.sub.Topic, c.sub.Group, now, jsonList(numbers)},
		func(rows *sql.Rows) (bool, error) {
			n++
			fits, err := c.scanDue(ctx, rows, byNumber, b)
			full = full || !fits
			return !b.empty() && n < limit, err
		})
	return !full && n < limit && !b.empty(), err
}

// scanDue adds one redelivery, unless it is in hand already. It reports false
// when there is no room for it.
func (c *consumer) scanDue(ctx context.Context, rows *sql.Rows, parts map[int]*partition, b *budget) (fits bool, err error) {
	r := &record{redelivery: true}
	var number int
	var metadata []byte
	if err := rows.Scan(&number, &r.position, &r.attempt, &r.key, &r.id, &metadata, &r.payload); err != nil {
		return false, err
	}
	r.part = parts[number]
	switch {
	case !r.part.takes(r.position):
		return true, nil
	case c.full(r.part):
		return false, nil
	}
	c.add(ctx, r, metadata, b)
	return true, nil
}
