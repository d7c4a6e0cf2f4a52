package kafkabus

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// poll stages what is fetched until ctx ends.
func (c *consumer) poll(ctx context.Context, cl *kgo.Client) {
	for c.stage.awaitRoom(ctx) {
		failed := c.pollOnce(cl)
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

// pollOnce reports whether the client returned errors only.
func (c *consumer) pollOnce(cl *kgo.Client) (failed bool) {
	c.gate.RLock()
	defer c.gate.RUnlock()
	fetches := cl.PollFetches(c.polling)
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
					c.fetched(p.Partition, p.Records)
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

// fetched stages records of a partition. Those of one that was given up meanwhile
// go to its next owner.
func (c *consumer) fetched(number int32, records []*kgo.Record) {
	c.mu.Lock()
	p := c.owned[number]
	c.mu.Unlock()
	if p != nil {
		c.stage.put(p, records)
	}
}

// interrupt returns when everything that was polled is staged.
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
