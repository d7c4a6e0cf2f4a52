package sqlbus

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// A stretch of one partition that may hold events to remove.
type stretch struct {
	topic     string
	partition int64
	after     int64
	until     int64
	floor     int64 // every group has consumed up to here
}

// sweep removes the events that are past their retention and that every group
// has consumed, a bounded number in each transaction. With nothing to do it
// costs a few look-ups per topic and partition.
func (b *Broker) sweep() error {
	topics, err := b.topics()
	if err != nil {
		return err
	}
	before := time.Now().Add(-b.cfg.Retention).UnixMicro()
	for _, topic := range topics {
		for partition := range b.file.partitions {
			if err := b.sweepPartition(stretch{topic: topic, partition: int64(partition)}, before); err != nil {
				return fmt.Errorf("topic %q, partition %d: %w", topic, partition, err)
			}
		}
	}
	return nil
}

// topics skips from one topic to the next, whatever the number of events.
func (b *Broker) topics() (names []string, err error) {
	err = b.file.read.each(`WITH RECURSIVE t(topic) AS (
	SELECT min(topic) FROM millrace_events
	UNION ALL
	SELECT (SELECT min(topic) FROM millrace_events WHERE topic > t.topic) FROM t WHERE t.topic IS NOT NULL
) SELECT topic FROM t WHERE topic IS NOT NULL`, nil, func(rows *sql.Rows) (bool, error) {
		var name string
		err := rows.Scan(&name)
		names = append(names, name)
		return true, err
	})
	return names, err
}

func (b *Broker) sweepPartition(s stretch, before int64) (err error) {
	if s.floor, err = floorOf(b.file.read, s); err != nil {
		return err
	}
	for b.open.Err() == nil {
		old, err := b.findOld(&s, before)
		if err != nil || old == 0 {
			return err
		}
		ctx, cancel := b.untilClosed(background)
		err = b.writer.do(ctx, 0, func(tx *session) error { return removeOld(tx, s, before) })
		cancel()
		if err != nil || old < retentionStep {
			return err
		}
		s.after = s.until
	}
	return nil
}

// findOld sets s.until to the last of the next events that are old enough, and
// returns how many they are.
func (b *Broker) findOld(s *stretch, before int64) (n int, err error) {
	err = b.file.read.each("SELECT position, published_at FROM millrace_events WHERE topic = ? AND partition = ? AND position > ? AND position <= ? ORDER BY position",
		[]any{s.topic, s.partition, s.after, s.floor},
		func(rows *sql.Rows) (bool, error) {
			var position, published int64
			if err := rows.Scan(&position, &published); err != nil || published >= before {
				return false, err
			}
			n++
			s.until = position
			return n < retentionStep, nil
		})
	return n, err
}

// floorOf returns the position up to which every group has consumed.
func floorOf(tx *session, s stretch) (int64, error) {
	floor, ok, err := tx.number("SELECT min(cursor) FROM millrace_groups WHERE topic = ? AND partition = ?", s.topic, s.partition)
	if !ok {
		return math.MaxInt64, err
	}
	return floor, err
}

// removeOld asks for the floor again, within the transaction: a group that was
// created meanwhile still gets its events.
func removeOld(tx *session, s stretch, before int64) error {
	floor, err := floorOf(tx, s)
	if err != nil {
		return err
	}
	_, err = tx.exec(`DELETE FROM millrace_events
WHERE topic = ? AND partition = ? AND position > ? AND position <= ? AND published_at < ?
AND NOT EXISTS (SELECT 1 FROM millrace_exceptions r WHERE r.position = millrace_events.position AND r.due_at IS NOT NULL)`,
		s.topic, s.partition, s.after, min(s.until, floor), before)
	return err
}

// RemoveGroup removes what the file knows about a group of a topic: its
// progress and its pending redeliveries. Until then the file keeps every event
// that the group has not consumed, so remove groups that will not come back. It
// refuses while the group has members. A group that does not exist is no error.
func (b *Broker) RemoveGroup(ctx context.Context, topic, group string) error {
	if err := b.enter(); err != nil {
		return b.errorf("remove group", topic, group, err)
	}
	defer b.calls.Done()
	ctx, cancel := b.untilClosed(ctx)
	defer cancel()
	if err := b.writer.do(ctx, 0, func(tx *session) error { return removeGroup(tx, topic, group) }); err != nil {
		return b.errorf("remove group", topic, group, err)
	}
	return nil
}

func removeGroup(tx *session, topic, group string) error {
	members, _, err := tx.number("SELECT count(*) FROM millrace_members WHERE topic = ? AND group_name = ? AND lease_until > ?", topic, group, time.Now().UnixMicro())
	if err != nil {
		return err
	}
	if members > 0 {
		return driver.Permanent(fmt.Errorf("the group has %d members", members))
	}
	for _, table := range []string{"millrace_groups", "millrace_members", "millrace_exceptions"} {
		if _, err := tx.exec("DELETE FROM "+table+" WHERE topic = ? AND group_name = ?", topic, group); err != nil {
			return err
		}
	}
	return nil
}
