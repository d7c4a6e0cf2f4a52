package sqlbus

import (
	"context"
	"database/sql"
	"math"
	"time"
)

// readDue adds the redeliveries that are due. It asks the file only when
// nextDue says that there may be any.
func (c *consumer) readDue(ctx context.Context, b *budget) error {
	if c.nextDue.Load() > time.Now().UnixMicro() {
		return nil
	}
	// Before the partitions are listed and the table is read: whatever is added
	// to either meanwhile lowers it again.
	c.nextDue.Store(math.MaxInt64)
	// Asked for first, so that what becomes due meanwhile is seen twice and not
	// never. A wait and no time: the clock may be the database's.
	wait, ok, err := c.b.store.read.number("SELECT min(due_at) - {now} FROM millrace_exceptions WHERE topic = ? AND group_name = ? AND due_at > {now}", c.sub.Topic, c.sub.Group)
	all := false
	if err == nil {
		all, err = c.readDueRows(ctx, c.partitions(), b)
	}
	if err != nil || !all {
		c.nextDue.Store(overdue)
		return err
	}
	if ok {
		c.expect(time.Now().UnixMicro() + wait)
	}
	return nil
}

// readDueRows adds what fits and reports whether that is all. It holds c.hands:
// a redelivery that is taken out of hand while this looks at an older state of
// the table would be delivered twice.
func (c *consumer) readDueRows(ctx context.Context, parts []*partition, b *budget) (all bool, err error) {
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
	list := make(numbers, 0, len(byNumber))
	for number := range byNumber {
		list = append(list, int64(number))
	}
	err = c.b.store.read.each(`SELECT r."partition", r.position, r.attempt, e."key", e.id, e.metadata, e.payload
FROM millrace_exceptions AS r JOIN millrace_events AS e ON e.position = r.position AND e.topic = r.topic
WHERE r.topic = ? AND r.group_name = ? AND r.due_at <= {now} AND r."partition" {in}
ORDER BY r.due_at {limit}`,
		[]any{c.sub.Topic, c.sub.Group, list, limit},
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
