package kafkabus

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// assigned is called by the client when it was given partitions.
func (c *consumer) assigned(_ context.Context, cl *kgo.Client, added map[string][]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, number := range added[c.sub.Topic] {
		p := newPartition(cl, c.sub.Topic, number, c.queue.Lane())
		c.owned[number] = p
		c.stage.enter(p)
	}
	cl.ResumeFetchPartitions(added) // they may have been paused when they were given up
}

// revoked is called by the client when it is to give partitions up. Others get
// them when it returns.
func (c *consumer) revoked(ctx context.Context, cl *kgo.Client, removed map[string][]int32) {
	parts := c.withdraw(ctx, removed)
	if len(parts) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rebalanceMargin/2)
	defer cancel()
	if err := c.commit(ctx, cl, parts); err != nil {
		c.complain("the progress of partitions that move could not be stored, so some events come again", err)
	}
	c.disown(parts)
}

// lost is called by the client when it is no member any more: others may have the
// partitions already. Handlers are waited for all the same, lest this member
// gets the partitions back and repeats what is still running.
func (c *consumer) lost(ctx context.Context, _ *kgo.Client, removed map[string][]int32) {
	parts := c.withdraw(ctx, removed)
	if len(parts) > 0 {
		c.log.Warn("kafkabus: the group, or the connection to it, was lost; it is joined again, and events since the last commit come again", "partitions", len(parts))
	}
	c.disown(parts)
}

// withdraw stops partitions and waits for the handlers that run, within bounds.
// When it returns, nothing more of them is handled.
func (c *consumer) withdraw(ctx context.Context, removed map[string][]int32) []*partition {
	var parts []*partition
	c.mu.Lock()
	for _, number := range removed[c.sub.Topic] {
		if p := c.owned[number]; p != nil {
			parts = append(parts, p)
		}
	}
	c.mu.Unlock()
	if len(parts) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.b.cfg.RevokeTimeout)
	defer cancel()
	var waiting sync.WaitGroup
	for _, p := range parts {
		waiting.Go(func() {
			if p.lane.Revoke(ctx) != nil {
				c.log.Warn("kafkabus: a handler still runs although its partition moves; its event is handled again by another member (revoke_timeout)", "partition", p.number)
			}
		})
	}
	waiting.Wait()
	c.interrupt()
	return parts
}

func (c *consumer) disown(parts []*partition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range parts {
		delete(c.owned, p.number)
		c.stage.leave(p)
	}
}

// commitTimeout bounds a commit that a rebalance may have to wait for.
const commitTimeout = 5 * time.Second

// commitLoop stores progress until ctx ends.
func (c *consumer) commitLoop(ctx context.Context, cl *kgo.Client) {
	for {
		select {
		case <-c.moved:
		case <-ctx.Done():
			return
		}
		bounded, cancel := context.WithTimeout(ctx, commitTimeout)
		err := c.commit(bounded, cl, c.partitions())
		cancel()
		if err != nil && ctx.Err() == nil {
			poke(c.moved)
			if !isMembership(err) && !errors.Is(err, kerr.CoordinatorLoadInProgress) {
				c.complain("progress could not be stored", err)
			}
		}
		select {
		case <-time.After(c.b.cfg.CommitInterval):
		case <-ctx.Done():
			return
		}
	}
}

// commit stores what is done of parts.
func (c *consumer) commit(ctx context.Context, cl *kgo.Client, parts []*partition) error {
	c.committing.Lock()
	defer c.committing.Unlock()
	at := offsets{}
	for _, p := range parts {
		if next, ok := p.next(); ok && next > p.stored {
			at[p.number] = next
		}
	}
	if len(at) == 0 {
		return nil
	}
	if err := commit(ctx, cl, c.sub.Topic, at); err != nil {
		return err
	}
	for _, p := range parts {
		if next, ok := at[p.number]; ok {
			p.stored = next
		}
	}
	return nil
}
