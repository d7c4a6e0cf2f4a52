package membus

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// group is what one consumer group has outstanding of one topic. Its members
// share the dispatcher.
type group struct {
	topic       *topic
	dispatcher  *dispatch.Dispatcher[*record]
	lane        *dispatch.Lane[*record]
	added       int64        // lane positions, under topic.mu: redelivered events come back at the end
	outstanding atomic.Int64 // events added and not acknowledged, delayed redeliveries included
	bytes       atomic.Int64 // and their payloads
}

func newGroup(t *topic) *group {
	d := dispatch.New[*record](dispatch.Config{})
	return &group{topic: t, dispatcher: d, lane: d.Lane()}
}

func (g *group) add(r *record) {
	g.outstanding.Add(1)
	g.bytes.Add(int64(len(r.payload)))
	g.enqueue(r, 1)
}

func (g *group) enqueue(r *record, attempt int) {
	g.added++
	_ = g.lane.Add(context.Background(), r.key, g.added, attempt, r) // fails only once the broker is closed
}

// settle is called by the worker that handled it.
func (g *group) settle(it *dispatch.Item[*record], res driver.Result) {
	if res.Redeliver && (res.Hold || res.Delay <= 0) {
		if res.Uncounted {
			it.Attempt--
		}
		it.Retry(res.Delay)
		return
	}
	t := g.topic
	if !res.Redeliver {
		g.outstanding.Add(-1)
		g.bytes.Add(-int64(len(it.Record.payload)))
		t.madeRoom()
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r, attempt := it.Record, it.Attempt+1
	t.later(res.Delay, func() { g.enqueue(r, attempt) })
}

type consumer struct {
	broker *Broker
	group  *group
	sub    driver.Subscription
}

// Run implements driver.Consumer.
func (c *consumer) Run(ctx context.Context) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(c.broker.open, stop)()
	c.group.dispatcher.Work(work, c.sub.Concurrency, c.deliver)
	if ctx.Err() == nil {
		return fmt.Errorf("membus: topic %q, group %q: %w", c.sub.Topic, c.sub.Group, driver.ErrClosed)
	}
	return nil
}

// outgoing is a delivery and its message in one allocation.
type outgoing struct {
	driver.Delivery
	message message.Message
}

func (c *consumer) deliver(it *dispatch.Item[*record]) {
	r := it.Record
	o := &outgoing{
		Delivery: driver.Delivery{Topic: c.sub.Topic, Key: r.key, Position: driver.Position{Offset: r.position}, Attempt: it.Attempt, Original: r},
		message:  message.Message{UUID: r.id, Metadata: r.copyMetadata(), Payload: r.payload},
	}
	o.Message = &o.message
	c.group.settle(it, c.sub.Handle(&o.Delivery))
}
