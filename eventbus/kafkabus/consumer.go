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
	b     *Broker
	sub   driver.Subscription
	log   *slog.Logger
	limit int64 // records held

	queue  *dispatch.Dispatcher[record]
	room   chan struct{} // pokes the poller: something was finished
	moved  chan struct{} // pokes the committer: a watermark moved
	hungry atomic.Bool   // the poller waits for room

	running atomic.Int32 // handlers
	reborn  atomic.Bool  // the topic was deleted and created anew

	// gate is held for reading from before a poll until what it returned is in its
	// lanes, and for writing before a partition is given up: so nothing polled
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
		limit = max(1024, 4*s.Concurrency)
	}
	c := &consumer{
		b: b, sub: s, limit: int64(limit),
		log:  b.cfg.Logger.With("topic", s.Topic, "group", s.Group),
		room: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		owned: map[int32]*partition{}, epoch: time.Now(),
	}
	// The poller bounds what it adds, so the dispatcher need not.
	c.queue = dispatch.New[record](dispatch.Config{Progress: func() { poke(c.moved) }})
	return c
}

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

// holdings are what is not done: records of partitions that are fetched, and of
// paused ones, and their sizes.
type holdings struct{ fetched, paused, bytes int64 }

func (c *consumer) held() (h holdings) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.owned {
		n := p.held.Load()
		h.bytes += p.bytes.Load()
		if p.paused.Load() {
			h.paused += n
		} else {
			h.fetched += n
		}
	}
	return h
}

// pauseHeaviest stops fetching the partition that holds most, so that the others
// get the room. It goes on when little of it is left.
func (c *consumer) pauseHeaviest() {
	var heaviest *partition
	for _, p := range c.partitions() {
		if !p.paused.Load() && (heaviest == nil || p.held.Load() > heaviest.held.Load()) {
			heaviest = p
		}
	}
	if heaviest != nil {
		heaviest.pause(c.low())
	}
}

// low is how many records a paused partition holds when it goes on.
func (c *consumer) low() int64 { return c.limit / 8 }

// poke signals a channel with a buffer of one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
