package sqlbus

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// tendEvery is how often a member looks whether others came or went.
const tendEvery = 250 * time.Millisecond

// errLost means that the lease ran out and others took the partitions.
var errLost = errors.New("the lease was lost")

// keep holds the membership until ctx ends: it joins, renews the lease, and
// sees to it that the members share the partitions evenly.
func (c *consumer) keep(ctx context.Context) {
	announced := false
	renewed := time.Time{}
	for {
		var err error
		switch member := c.name(); {
		case c.draining.Load() && !announced:
			announced = true
			c.releaseAll()
			if member != "" {
				err = c.announceLeave(ctx, member)
			}
		case member == "" && c.draining.Load():
		case member == "":
			err = c.join(ctx)
			renewed = time.Now()
		case time.Since(renewed) > c.b.cfg.Lease/3 || !c.leased():
			if err = c.renew(ctx, member); err == nil {
				renewed = time.Now()
			}
		}
		if err == nil && !c.draining.Load() {
			err = c.balance(ctx)
		}
		if errors.Is(err, errLost) {
			c.forfeit()
		}
		if err != nil && ctx.Err() == nil {
			c.complain("membership of the group could not be kept", err)
		}
		if c.draining.Load() && !announced {
			continue
		}
		if !wait(ctx, c.tend, jitter(tendEvery)) {
			return
		}
	}
}

func (c *consumer) name() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.member
}

// hold notes a lease that was stored; start is when the storing began, so it
// ends here no later than by the clock of the database. The rest is for clocks
// that don't run at the same speed.
func (c *consumer) hold(start time.Time) {
	c.lease.Store(int64(start.Add(c.b.cfg.Lease - c.b.cfg.Lease/100).Sub(c.epoch)))
}

func (c *consumer) join(ctx context.Context) error {
	member := fmt.Sprintf("%d-%s", os.Getpid(), rand.Text()) // the process id helps who looks into the file
	start := time.Now()
	err := c.b.engine.do(ctx, c.group(), func(s *session) error {
		// It may be there if this runs again.
		if _, err := s.exec("DELETE FROM millrace_members WHERE topic = ? AND group_name = ? AND member = ?", c.sub.Topic, c.sub.Group, member); err != nil {
			return err
		}
		_, err := s.exec("INSERT INTO millrace_members (topic, group_name, member, lease_until, leaving) VALUES (?, ?, ?, {now} + ?, 0)",
			c.sub.Topic, c.sub.Group, member, c.b.cfg.Lease.Microseconds())
		return err
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.member = member
	c.mu.Unlock()
	c.hold(start)
	return nil
}

// renew fails with errLost when others have removed the member.
func (c *consumer) renew(ctx context.Context, member string) error {
	start, kept := time.Now(), int64(0)
	err := c.b.engine.do(ctx, c.group(), func(s *session) (err error) {
		kept, err = s.exec("UPDATE millrace_members SET lease_until = {now} + ? WHERE topic = ? AND group_name = ? AND member = ?",
			c.b.cfg.Lease.Microseconds(), c.sub.Topic, c.sub.Group, member)
		return err
	})
	if err == nil && kept == 0 {
		return errLost
	}
	if err == nil {
		c.hold(start)
	}
	return err
}

// members is what a member knows of its group.
type members struct {
	rank    int // of this member, by name
	active  int // members that are not about to leave
	expired bool
	present bool
	names   []string
}

func (m members) has(name string) bool { return slices.Contains(m.names, name) }

// quota is the number of partitions that the member should own.
func (m members) quota(partitions int) int {
	n := partitions / m.active
	if m.rank < partitions%m.active {
		n++
	}
	return n
}

func (c *consumer) look(s *session, member string) (m members, err error) {
	err = s.each("SELECT member, lease_until < {now}, leaving FROM millrace_members WHERE topic = ? AND group_name = ? ORDER BY member", []any{c.sub.Topic, c.sub.Group},
		func(rows *sql.Rows) (bool, error) {
			var name string
			var ended, leaving bool
			if err := rows.Scan(&name, &ended, &leaving); err != nil {
				return false, err
			}
			m.names = append(m.names, name)
			switch {
			case name == member:
				m.present, m.rank = true, m.active
				m.active++
			case ended:
				m.expired = true
			case !leaving:
				m.active++
			}
			return true, nil
		})
	return m, err
}

// balance gives partitions up that are over the member's quota, or takes what
// is free up to it.
func (c *consumer) balance(ctx context.Context) error {
	member := c.name()
	m, err := c.look(c.b.store.read, member)
	if err != nil {
		return err
	}
	if !m.present {
		return errLost
	}
	parts := slices.DeleteFunc(c.partitions(), (*partition).sealed)
	quota := m.quota(c.b.store.partitions)
	for _, p := range parts[min(quota, len(parts)):] {
		c.release(p)
	}
	if len(parts) < quota || m.expired {
		return c.acquire(ctx, member)
	}
	return nil
}
