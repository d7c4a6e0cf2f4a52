package kafkabus

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// maxBytes bounds the records a consumer holds; it is checked before each poll.
	maxBytes = 64 << 20
	// starving is how long workers may be idle while the buffer is full.
	starving = 10 * time.Millisecond
	// maxPaused bounds what paused partitions hold, in buffers.
	maxPaused = 8
)

// poll moves what is fetched into lanes until ctx ends.
func (c *consumer) poll(ctx context.Context, cl *kgo.Client) {
	timer := time.NewTimer(starving)
	defer timer.Stop()
	for ctx.Err() == nil {
		n := c.waitForRoom(ctx, timer)
		if n == 0 {
			return
		}
		failed := c.pollOnce(cl, n)
		if c.reborn.CompareAndSwap(true, false) {
			cl.PurgeTopicsFromConsuming(c.sub.Topic)
			cl.AddConsumeTopics(c.sub.Topic)
		}
		if failed {
			select {
			case <-time.After(mendPause):
			case <-ctx.Done():
			}
		}
	}
}

// waitForRoom returns how many records to take; 0 when ctx has ended. Once the
// buffer was full it is refilled by quarters, not one by one.
func (c *consumer) waitForRoom(ctx context.Context, timer *time.Timer) int {
	room, bytes := c.limit, int64(maxBytes)
	for ctx.Err() == nil {
		h := c.held()
		if h.fetched < room && h.bytes < bytes {
			c.hungry.Store(false)
			return int(min(c.limit-h.fetched, max(c.limit/4, 1)))
		}
		room, bytes = c.limit-c.limit/4, maxBytes-maxBytes/4
		c.hungry.Store(true)
		timer.Reset(starving)
		select {
		case <-c.room:
		case <-timer.C:
			if int(c.running.Load()) < c.sub.Concurrency && h.paused < maxPaused*c.limit && h.bytes < maxBytes {
				c.pauseHeaviest() // it is full of what waits for a few keys
			}
		case <-ctx.Done():
		}
	}
	return 0
}

// pollOnce reports whether the client returned errors only.
func (c *consumer) pollOnce(cl *kgo.Client, n int) (failed bool) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	fetches := cl.PollRecords(c.polling, n)
	for i := range fetches {
		for j := range fetches[i].Topics {
			t := &fetches[i].Topics[j]
			for k := range t.Partitions {
				p := &t.Partitions[k]
				if p.Err != nil {
					failed = true
					c.fetchFailed(p.Err)
				}
				if len(p.Records) > 0 && t.Topic == c.sub.Topic {
					failed = false
					c.add(p.Partition, p.Records)
				}
			}
		}
	}
	return failed && c.polling.Err() == nil
}

func (c *consumer) fetchFailed(err error) {
	if errors.Is(err, kerr.UnknownTopicID) { // it was deleted and created anew, which the client won't believe
		c.reborn.Store(true)
	}
	if !is(err, context.Canceled, kgo.ErrClientClosed) {
		c.complain("reading failed", err)
	}
}

// add puts records of a partition in its lane. Those of one that was given up
// meanwhile go to its next owner.
func (c *consumer) add(number int32, records []*kgo.Record) {
	c.mu.Lock()
	p := c.owned[number]
	c.mu.Unlock()
	if p == nil {
		return
	}
	for _, r := range records {
		size := sizeOf(r)
		p.held.Add(1)
		p.bytes.Add(size)
		err := p.lane.Add(context.Background(), keyOf(r), r.Offset, 1, record{Record: r, part: p, size: size})
		if err != nil { // revoked
			return
		}
	}
}

// interrupt returns when everything that was polled is in its lane.
func (c *consumer) interrupt() {
	c.mu.Lock()
	c.stopPoll()
	c.mu.Unlock()
	c.gate.Lock()
	defer c.gate.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.polling, c.stopPoll = context.WithCancel(c.work)
}
