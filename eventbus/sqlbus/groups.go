package sqlbus

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// RemoveGroup removes what is known of a group of a topic: its progress and its
// pending redeliveries. Until then the database keeps every event
// that the group has not consumed, so remove groups that will not come back. It
// refuses while the group has members. A group that does not exist is no error.
func (b *Broker) RemoveGroup(ctx context.Context, topic, group string) error {
	if err := b.enter(); err != nil {
		return b.errorf("remove group", topic, group, err)
	}
	defer b.calls.Done()
	ctx, cancel := b.untilClosed(ctx)
	defer cancel()
	if err := b.engine.do(ctx, laneOf(topic, group), func(tx *session) error { return removeGroup(tx, topic, group) }); err != nil {
		return b.errorf("remove group", topic, group, err)
	}
	return nil
}

func removeGroup(tx *session, topic, group string) error {
	if err := lockIdle(tx, topic, group); err != nil {
		return err
	}
	for _, table := range []string{"millrace_groups", "millrace_members", "millrace_exceptions"} {
		if _, err := tx.exec("DELETE FROM "+table+" WHERE topic = ? AND group_name = ?", topic, group); err != nil {
			return err
		}
	}
	return nil
}

// lockIdle locks the group and fails if it has members.
func lockIdle(tx *session, topic, group string) error {
	err := tx.each("SELECT token FROM millrace_groups WHERE topic = ? AND group_name = ? ORDER BY \"partition\" {lock}", []any{topic, group},
		func(*sql.Rows) (bool, error) { return true, nil })
	if err != nil {
		return err
	}
	members, _, err := tx.number("SELECT count(*) FROM millrace_members WHERE topic = ? AND group_name = ? AND lease_until > {now}", topic, group)
	if err == nil && members > 0 {
		err = fmt.Errorf("%w: %d of them", driver.ErrBusy, members)
	}
	return err
}

// Seek implements driver.Seeker. It forgets what the group had pending: the
// redeliveries it asked for, and what it settled out of turn. The time of an
// event is that at which the database stored it.
func (b *Broker) Seek(ctx context.Context, topic, group string, to time.Time) error {
	if err := errors.Join(driver.CheckTopic(topic), driver.CheckGroup(group)); err != nil {
		return b.errorf("seek group", topic, group, err)
	}
	if err := b.enter(); err != nil {
		return b.errorf("seek group", topic, group, err)
	}
	defer b.calls.Done()
	ctx, cancel := b.untilClosed(ctx)
	defer cancel()
	err := b.engine.do(ctx, laneOf(topic, group), func(tx *session) error { return b.seek(tx, topic, group, to) })
	if err != nil {
		return b.errorf("seek group", topic, group, err)
	}
	return nil
}

func (b *Broker) seek(tx *session, topic, group string, to time.Time) error {
	if err := lockIdle(tx, topic, group); err != nil {
		return err
	}
	cursor, err := b.cursorAt(tx, topic, to)
	if err != nil {
		return err
	}
	if err := b.insertGroup(tx, topic, group, cursor); err != nil {
		return err
	}
	// The token fences members that were thought dead.
	if _, err := tx.exec(`UPDATE millrace_groups SET "cursor" = ?, owner = NULL, token = token + 1 WHERE topic = ? AND group_name = ?`, cursor, topic, group); err != nil {
		return err
	}
	for _, table := range []string{"millrace_members", "millrace_exceptions"} {
		if _, err := tx.exec("DELETE FROM "+table+" WHERE topic = ? AND group_name = ?", topic, group); err != nil {
			return err
		}
	}
	return nil
}

// cursorAt returns a position that only events published before to are at or
// below, and that the first of the others follows. It looks in the middle again
// and again, since there is no index by time.
func (b *Broker) cursorAt(tx *session, topic string, to time.Time) (int64, error) {
	if to.IsZero() {
		return 0, nil
	}
	from := microsUp(to)
	high, _, err := b.newest(tx, topic)
	low := int64(0)
	for err == nil && low < high {
		middle := low + (high-low)/2
		position, early := int64(0), false
		err = tx.each(b.store.dialect.next, []any{from, topic, middle, 1},
			func(rows *sql.Rows) (bool, error) { return false, rows.Scan(&position, &early) })
		if early {
			low = position
		} else {
			high = middle
		}
	}
	return low, err
}
