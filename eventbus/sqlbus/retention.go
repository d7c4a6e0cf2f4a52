package sqlbus

import (
	"database/sql"
	"fmt"
	"math"
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
	for _, topic := range topics {
		for partition := range b.store.partitions {
			if err := b.sweepPartition(stretch{topic: topic, partition: int64(partition)}); err != nil {
				return fmt.Errorf("topic %q, partition %d: %w", topic, partition, err)
			}
		}
	}
	ctx, cancel := b.untilClosed(background)
	defer cancel()
	return b.engine.tidy(ctx)
}

// topics returns those that may hold events.
func (b *Broker) topics() (names []string, err error) {
	var args []any
	if b.store.dialect.old {
		args = append(args, b.cfg.Retention.Microseconds())
	}
	err = b.store.read.each(b.store.dialect.topics, args, func(rows *sql.Rows) (bool, error) {
		var name string
		err := rows.Scan(&name)
		names = append(names, name)
		return true, err
	})
	return names, err
}

func (b *Broker) sweepPartition(s stretch) (err error) {
	if s.floor, err = floorOf(b.store.read, s); err != nil {
		return err
	}
	for b.open.Err() == nil {
		old, err := b.findOld(&s)
		if err != nil || old == 0 {
			return err
		}
		ctx, cancel := b.untilClosed(background)
		err = b.engine.do(ctx, laneOf(s.topic, ""), func(tx *session) error { return b.removeOld(tx, s) })
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
func (b *Broker) findOld(s *stretch) (n int, err error) {
	err = b.store.read.each(`SELECT position, published_at < {now} - ? FROM millrace_events WHERE topic = ? AND "partition" = ? AND position > ? AND position <= ? ORDER BY position {limit}`,
		[]any{b.cfg.Retention.Microseconds(), s.topic, s.partition, s.after, s.floor, retentionStep},
		func(rows *sql.Rows) (bool, error) {
			var position int64
			var old bool
			if err := rows.Scan(&position, &old); err != nil || !old {
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
	floor, ok, err := tx.number(`SELECT min("cursor") FROM millrace_groups WHERE topic = ? AND "partition" = ?`, s.topic, s.partition)
	if !ok {
		return math.MaxInt64, err
	}
	return floor, err
}

// removeOld asks for the floor again, within the transaction: a group that was
// created meanwhile still gets its events.
func (b *Broker) removeOld(tx *session, s stretch) error {
	floor, err := floorOf(tx, s)
	if err != nil {
		return err
	}
	_, err = tx.exec(`DELETE FROM millrace_events
WHERE topic = ? AND "partition" = ? AND position > ? AND position <= ? AND published_at < {now} - ?
AND NOT EXISTS (SELECT 1 FROM millrace_exceptions r WHERE r.topic = millrace_events.topic AND r.position = millrace_events.position AND r.due_at IS NOT NULL)`,
		s.topic, s.partition, s.after, min(s.until, floor), b.cfg.Retention.Microseconds())
	return err
}
