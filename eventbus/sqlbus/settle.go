package sqlbus

import (
	"context"
	"maps"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// unsettledPause is how long an event waits that could not be delivered or
// settled because the file could not be written to.
const unsettledPause = 50 * time.Millisecond

// deliver is called by the workers.
func (c *consumer) deliver(it *dispatch.Item[*record]) {
	r := it.Record
	switch {
	case !c.leased(): // somebody else may have the key in hand
		it.Retry(unsettledPause)
		poke(c.tend)
		return
	case r.postponed > time.Now().UnixMicro():
		c.postpone(it)
		return
	}
	r.postponed = 0
	res := c.sub.Handle(&driver.Delivery{
		Message:  r.NewMessage(),
		Topic:    c.sub.Topic,
		Key:      r.key,
		Position: driver.Position{Partition: int32(r.part.number), Offset: r.position},
		Attempt:  r.attempt,
		Original: r,
	})
	if !res.Redeliver {
		r.part.finish(r, true)
		c.settled(r)
		return
	}
	if !res.Uncounted {
		r.attempt++
	}
	if res.Hold || res.Delay <= 0 {
		it.Retry(res.Delay)
		return
	}
	r.postponed = microsUp(time.Now().Add(res.Delay))
	c.postpone(it)
}

// NewMessage implements driver.Delivery.Original.
func (r *record) NewMessage() *message.Message {
	return &message.Message{UUID: r.id, Metadata: maps.Clone(r.metadata), Payload: r.payload}
}

// settled wakes whoever waits for an event to be done.
func (c *consumer) settled(r *record) {
	if r.redelivery {
		poke(c.moved) // its row is to be removed, even if the watermark can't move
	}
	if c.hungry.Load() {
		poke(c.awake)
	}
}

// postpone stores that the event is wanted again later and counts it as done
// here. If that fails the event stays, and its key with it.
func (c *consumer) postpone(it *dispatch.Item[*record]) {
	r := it.Record
	ctx, cancel := context.WithTimeout(background, c.b.cfg.Lease)
	defer cancel()
	stored := false
	err := c.b.engine.do(ctx, c.group(), func(s *session) (err error) {
		stored, err = c.storeRedelivery(s, r)
		return err
	})
	if err != nil {
		c.complain("a delayed redelivery could not be stored", err)
	}
	if err != nil || !stored { // not stored: the partition was lost, the next owner delivers it
		it.Retry(unsettledPause)
		poke(c.tend)
		return
	}
	if r.redelivery {
		c.hands.Lock()
		r.part.forget(r.position)
		c.hands.Unlock()
	}
	r.part.finish(r, false)
	c.expect(r.postponed)
	c.settled(r)
}

func (c *consumer) storeRedelivery(s *session, r *record) (stored bool, err error) {
	_, ours, err := s.number(`SELECT token FROM millrace_groups WHERE topic = ? AND group_name = ? AND "partition" = ? AND token = ? {lock}`,
		c.sub.Topic, c.sub.Group, r.part.number, r.part.token)
	if err != nil || !ours {
		return false, err
	}
	wait := max(0, time.Until(time.UnixMicro(r.postponed)).Microseconds()+1)
	n, err := s.exec("UPDATE millrace_exceptions SET attempt = ?, due_at = {now} + ? WHERE topic = ? AND group_name = ? AND position = ?",
		r.attempt, wait, c.sub.Topic, c.sub.Group, r.position)
	if err == nil && n == 0 {
		_, err = s.exec(`INSERT INTO millrace_exceptions (attempt, due_at, topic, group_name, position, "partition") VALUES (?, {now} + ?, ?, ?, ?, ?)`,
			r.attempt, wait, c.sub.Topic, c.sub.Group, r.position, r.part.number)
	}
	return err == nil, err
}

// expect makes the feeder look for redeliveries at the given time, if it would
// look later.
func (c *consumer) expect(due int64) {
	for {
		next := c.nextDue.Load()
		if next <= due {
			return
		}
		if c.nextDue.CompareAndSwap(next, due) {
			poke(c.awake)
			return
		}
	}
}
