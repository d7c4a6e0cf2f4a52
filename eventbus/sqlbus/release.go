package sqlbus

import (
	"context"
	"time"
)

// release gives p up: once its running handlers have returned, what is done is
// committed and others may have it. However long a handler runs, its key is
// handled by nobody else as long as the lease is renewed.
func (c *consumer) release(p *partition) {
	if !p.seal() {
		return
	}
	c.releases.Go(func() {
		_ = p.lane.Revoke(background) // can't fail: the context never ends
		p.withdrawn.Store(true)
		ctx, cancel := context.WithTimeout(background, c.b.cfg.Lease)
		defer cancel()
		for pause := c.b.store.dialect.commitEvery; c.owns(p); pause = min(2*pause, commitBackoff) {
			err := c.commit(ctx, true) // with all others that are this far
			if err == nil {
				continue
			}
			c.complain("a partition could not be given up", err)
			if !wait(ctx, nil, jitter(pause)) {
				c.remove(p) // leaving, or balance, makes it free
			}
		}
	})
}

func (c *consumer) releaseAll() {
	for _, p := range c.partitions() {
		c.release(p)
	}
}

func (c *consumer) owns(p *partition) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owned[p.number] == p
}

func (c *consumer) remove(p *partition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owned[p.number] == p {
		delete(c.owned, p.number)
	}
}

// drop lets go of a partition that was lost, without waiting for its handlers.
func (c *consumer) drop(p *partition) {
	p.seal()
	c.remove(p)
	p.lane.Abandon()
}

// forfeit lets go of everything after the lease was lost, and waits a while for
// the handlers that still run, so that at least this member does not start
// their keys again beside them.
func (c *consumer) forfeit() {
	c.lease.Store(0)
	c.mu.Lock()
	c.member = ""
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(background, c.b.cfg.Lease)
	defer cancel()
	parts := c.partitions()
	c.log.Warn("sqlbus: the lease was lost to other members, events that still run may be handled twice", "partitions", len(parts))
	for _, p := range parts {
		c.drop(p)
	}
	for _, p := range parts {
		_ = p.lane.Revoke(ctx) // the others have the partition in any case
	}
}

// announceLeave makes the others share out what this member gives up.
func (c *consumer) announceLeave(ctx context.Context, member string) error {
	return c.b.engine.do(ctx, c.group(), func(s *session) error {
		_, err := s.exec("UPDATE millrace_members SET leaving = 1 WHERE topic = ? AND group_name = ? AND member = ?", c.sub.Topic, c.sub.Group, member)
		return err
	})
}

// leave ends the membership after the last handler has returned.
func (c *consumer) leave() {
	c.releaseAll()
	c.releases.Wait()
	member := c.name()
	if member == "" {
		return
	}
	ctx, cancel := context.WithTimeout(background, min(c.b.cfg.Lease, 5*time.Second))
	defer cancel()
	err := c.b.engine.do(ctx, c.group(), func(s *session) error {
		_, err := s.exec("DELETE FROM millrace_members WHERE topic = ? AND group_name = ? AND member = ?", c.sub.Topic, c.sub.Group, member)
		return err
	})
	if err != nil {
		c.log.Warn("sqlbus: the group could not be left cleanly, others take over when the lease ends", "error", err)
	}
}
