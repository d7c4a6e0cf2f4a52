package amqpbus

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// consumer is a member of a group.
type consumer struct {
	b     *Broker
	sub   driver.Subscription
	names groupNames
	log   *slog.Logger
	work  *dispatch.Dispatcher[*record]
	tried attempts

	claiming atomic.Bool // a claimLate is running

	warned atomic.Int64 // when, in nanoseconds since epoch
	epoch  time.Time

	// Of the keeper alone.
	intakes map[int]*intake                 // by queue
	former  map[int]*dispatch.Lane[*record] // the last lane of each queue
	ended   chan *intake
	ending  sync.WaitGroup
}

func newConsumer(b *Broker, s driver.Subscription, n groupNames) *consumer {
	return &consumer{
		b: b, sub: s, names: n, epoch: time.Now(),
		log:     b.cfg.Logger.With("topic", s.Topic, "group", s.Group),
		work:    dispatch.New[*record](dispatch.Config{}), // prefetch bounds it
		intakes: map[int]*intake{}, former: map[int]*dispatch.Lane[*record]{},
		ended: make(chan *intake, slots),
	}
}

// Run implements driver.Consumer.
func (c *consumer) Run(ctx context.Context) error {
	if err := c.b.attach(); err != nil {
		return c.errorf(err)
	}
	defer c.b.detach()
	work, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(c.b.open, stop)()
	var keeping sync.WaitGroup
	if work.Err() == nil {
		keeping.Go(func() { c.keep(work) })
		c.work.Work(work, c.sub.Concurrency, c.deliver)
	}
	keeping.Wait()
	if ctx.Err() == nil {
		return c.errorf(driver.ErrClosed)
	}
	return nil
}

func (c *consumer) errorf(err error) error {
	return fmt.Errorf("amqpbus: run group %q of topic %q: %w", c.sub.Group, c.sub.Topic, err)
}

// delivered is a delivery and its message in one allocation.
type delivered struct {
	driver.Delivery
	message message.Message
}

func (c *consumer) deliver(it *dispatch.Item[*record]) {
	r := it.Record
	d := &delivered{
		Delivery: driver.Delivery{Topic: c.sub.Topic, Key: r.key, Position: r.position(), Attempt: it.Attempt, Original: r},
		message:  message.Message{UUID: r.id, Metadata: maps.Clone(r.metadata), Payload: r.payload},
	}
	d.Message = &d.message
	res := c.sub.Handle(&d.Delivery)
	switch {
	case !res.Redeliver:
		if it.Attempt > 1 {
			c.tried.forget(r.id)
		}
		r.tally.settle(r)
		return
	case res.Hold || res.Delay <= 0:
		if res.Uncounted {
			it.Attempt--
		}
		it.Retry(res.Delay)
	default:
		it.Defer(res.Delay)
	}
	c.tried.note(r.id, it.Attempt+1)
}

// complain logs what is being mended, at most once a second.
func (c *consumer) complain(message string, err error) {
	now, last := int64(time.Since(c.epoch)), c.warned.Load()
	if (last == 0 || now-last > int64(time.Second)) && c.warned.CompareAndSwap(last, now) {
		c.log.Warn("amqpbus: "+message+", it will be tried again", "error", fmt.Sprint(err))
	}
}
