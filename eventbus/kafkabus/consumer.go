package kafkabus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// consumer is one member of a group, once it runs.
type consumer struct {
	b   *Broker
	sub driver.Subscription
	log *slog.Logger

	queue *dispatch.Dispatcher[record]
	stage *stage
	moved chan struct{} // pokes the committer: a watermark moved

	reborn atomic.Bool // the topic was deleted and created anew

	// gate is held for reading from before a poll until what it returned is staged,
	// and for writing before a partition is given up: so nothing polled
	// before can end up in the lane of a later assignment.
	gate    sync.RWMutex
	work    context.Context // ends when nothing more is to be handled
	polling context.Context // of polls; replaced under gate

	committing sync.Mutex // one commit at a time

	mu       sync.Mutex
	stopPoll context.CancelFunc
	owned    map[int32]*partition

	warned atomic.Int64 // time of the last warning, in nanoseconds since epoch
	epoch  time.Time
}

func newConsumer(b *Broker, s driver.Subscription) *consumer {
	limit := b.cfg.Buffer
	if limit == 0 {
		limit = max(defaultBuffer, 4*s.Concurrency)
	}
	c := &consumer{
		b: b, sub: s,
		log:   b.cfg.Logger.With("topic", s.Topic, "group", s.Group),
		moved: make(chan struct{}, 1),
		owned: map[int32]*partition{}, epoch: time.Now(),
	}
	c.stage = newStage(int64(limit), func() bool { return c.queue.Idle() > 0 })
	// The stage bounds what it adds, so the dispatcher need not.
	c.queue = dispatch.New[record](dispatch.Config{Progress: func() { poke(c.moved) }})
	return c
}

const defaultBuffer = 4096

// leaveTimeout bounds what a member waits for a broker that does not answer when
// it leaves.
const leaveTimeout = 10 * time.Second

// Run implements driver.Consumer.
func (c *consumer) Run(ctx context.Context) error {
	if err := c.b.open.Err(); err != nil {
		return c.b.errorf("run", c.sub.Topic, c.sub.Group, driver.ErrClosed)
	}
	if ctx.Err() != nil {
		return nil
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(c.b.open, stop)()
	c.work = work
	c.polling, c.stopPoll = context.WithCancel(work)

	life, die := context.WithCancel(context.Background())
	defer die()
	cl, err := c.b.conn.client(append(c.b.memberOptions(c.sub.Topic, c.sub.Group),
		kgo.WithContext(life),
		kgo.OnPartitionsAssigned(c.assigned),
		kgo.OnPartitionsRevoked(c.revoked),
		kgo.OnPartitionsLost(c.lost))...)
	if err != nil {
		return c.b.errorf("run", c.sub.Topic, c.sub.Group, err)
	}
	rest, endCommits := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	loops.Go(func() { c.poll(work, cl) })
	loops.Go(func() { c.stage.feed(work) })
	loops.Go(func() { c.commitLoop(rest, cl) })
	c.queue.Work(work, c.sub.Concurrency, c.deliver)
	endCommits()
	loops.Wait()
	timer := time.AfterFunc(leaveTimeout, die)
	cl.Close() // leaves the group: all partitions are revoked, which commits
	timer.Stop()
	if ctx.Err() == nil {
		return c.b.errorf("run", c.sub.Topic, c.sub.Group, driver.ErrClosed)
	}
	return nil
}

// complain logs what is being mended, at most once in a while.
func (c *consumer) complain(message string, err error) {
	now, last := int64(time.Since(c.epoch)), c.warned.Load()
	if (last == 0 || now-last > int64(quietFor)) && c.warned.CompareAndSwap(last, now) {
		c.log.Warn("kafkabus: "+message+", it will be tried again", "error", fmt.Sprint(explain(err)))
	}
}

// partitions returns those that are owned.
func (c *consumer) partitions() []*partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*partition, 0, len(c.owned))
	for _, p := range c.owned {
		all = append(all, p)
	}
	return all
}

// poke signals a channel with a buffer of one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
