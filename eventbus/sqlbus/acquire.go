package sqlbus

import (
	"context"
	"database/sql"
	"strconv"
	"time"
)

// taken is a partition as its new owner finds it.
type taken struct{ number, token, cursor int64 }

// acquire takes free partitions up to the quota.
func (c *consumer) acquire(ctx context.Context, member string) error {
	if !c.leased() {
		return nil
	}
	owned := c.partitions()
	var free []taken
	var leftover int64
	err := c.b.writer.do(ctx, 0, func(s *session) (err error) {
		if free, err = c.takeFree(s, member, owned); err != nil || len(free) == 0 {
			return err
		}
		leftover, _, err = s.number("SELECT max(position) FROM millrace_exceptions WHERE topic = ? AND group_name = ? AND due_at IS NULL", c.sub.Topic, c.sub.Group)
		return err
	})
	if err != nil || len(free) == 0 {
		return err
	}
	c.mu.Lock()
	for _, f := range free {
		c.owned[int(f.number)] = newPartition(int(f.number), f.token, f.cursor, leftover, c.queue.Lane())
	}
	c.mu.Unlock()
	c.nextDue.Store(overdue)
	poke(c.awake)
	return nil
}

// takeFree also removes members whose lease has ended: a partition is free when
// nobody who is a member owns it, or when this member does and doesn't know,
// because a commit that went through was reported as failed.
func (c *consumer) takeFree(s *session, member string, owned []*partition) (free []taken, err error) {
	if _, err := s.exec("DELETE FROM millrace_members WHERE topic = ? AND group_name = ? AND lease_until < ? AND member <> ?", c.sub.Topic, c.sub.Group, time.Now().UnixMicro(), member); err != nil {
		return nil, err
	}
	m, err := c.look(s, member)
	if err != nil || !m.present {
		return nil, err
	}
	want, list := m.quota(c.b.file.partitions), make([]int, len(owned))
	for i, p := range owned {
		list[i] = p.number
		if !p.sealed() {
			want--
		}
	}
	if want <= 0 {
		return nil, nil
	}
	err = s.each(`UPDATE millrace_groups SET owner = ?, token = token + 1
WHERE topic = ? AND group_name = ? AND partition IN (
	SELECT partition FROM millrace_groups WHERE topic = ? AND group_name = ? AND (owner IS NULL OR owner NOT IN (
		SELECT member FROM millrace_members WHERE topic = ? AND group_name = ?
	) OR owner = ? AND partition NOT IN (SELECT value FROM json_each(?))) LIMIT ?
) RETURNING partition, token, cursor`,
		[]any{member, c.sub.Topic, c.sub.Group, c.sub.Topic, c.sub.Group, c.sub.Topic, c.sub.Group, member, jsonList(list), want},
		func(rows *sql.Rows) (bool, error) {
			var t taken
			err := rows.Scan(&t.number, &t.token, &t.cursor)
			free = append(free, t)
			return true, err
		})
	return free, err
}

// jsonList is how a list of any length gets into a prepared statement.
func jsonList(numbers []int) string {
	b := []byte{'['}
	for i, n := range numbers {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(n), 10)
	}
	return string(append(b, ']'))
}
