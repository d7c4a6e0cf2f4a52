package sqlbus

import (
	"context"
	"database/sql"
	"slices"
)

// taken is a partition as its new owner finds it.
type taken struct {
	number, token, cursor int64
	owner                 string // before it was taken
}

// acquire takes free partitions up to the quota.
func (c *consumer) acquire(ctx context.Context, member string) error {
	if !c.leased() {
		return nil
	}
	owned := c.partitions()
	var free []taken
	var leftover int64
	err := c.b.engine.do(ctx, c.group(), func(s *session) (err error) {
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
func (c *consumer) takeFree(s *session, member string, owned []*partition) ([]taken, error) {
	all, err := c.lockGroup(s)
	if err != nil {
		return nil, err
	}
	if _, err := s.exec("DELETE FROM millrace_members WHERE topic = ? AND group_name = ? AND lease_until < {now} AND member <> ?", c.sub.Topic, c.sub.Group, member); err != nil {
		return nil, err
	}
	m, err := c.look(s, member)
	if err != nil || !m.present {
		return nil, err
	}
	want := m.quota(c.b.store.partitions)
	for _, p := range owned {
		if !p.sealed() {
			want--
		}
	}
	free := slices.DeleteFunc(all, func(t taken) bool {
		if t.owner == member {
			return slices.ContainsFunc(owned, func(p *partition) bool { return int64(p.number) == t.number })
		}
		return m.has(t.owner)
	})
	free = free[:max(0, min(want, len(free)))]
	if len(free) == 0 {
		return nil, nil
	}
	list := make(numbers, len(free))
	for i := range free {
		free[i].token++
		list[i] = free[i].number
	}
	_, err = s.exec(`UPDATE millrace_groups SET owner = ?, token = token + 1 WHERE topic = ? AND group_name = ? AND "partition" {in}`,
		member, c.sub.Topic, c.sub.Group, list)
	return free, err
}

// lockGroup returns the partitions of the group. Nobody else moves them, or
// stores progress in them, until the transaction ends.
func (c *consumer) lockGroup(s *session) (all []taken, err error) {
	err = s.each(`SELECT "partition", token, "cursor", owner FROM millrace_groups WHERE topic = ? AND group_name = ? ORDER BY "partition" {lock}`,
		[]any{c.sub.Topic, c.sub.Group},
		func(rows *sql.Rows) (bool, error) {
			var t taken
			var owner sql.NullString
			err := rows.Scan(&t.number, &t.token, &t.cursor, &owner)
			t.owner = owner.String
			all = append(all, t)
			return true, err
		})
	return all, err
}
