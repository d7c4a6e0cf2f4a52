package sqlbus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// Bounds of what a consumer holds in memory.
const (
	minHeld  = 1024     // records, or four per worker
	maxBytes = 64 << 20 // payloads and metadata, checked before each event is read
	maxMarks = 16384    // events of one partition that are done but for an earlier one
)

// consumer is one member of a group, once it runs.
type consumer struct {
	b     *Broker
	sub   driver.Subscription
	log   *slog.Logger
	limit int // records held

	queue *dispatch.Dispatcher[*record]
	awake chan struct{} // pokes the feeder: there may be something to read
	moved chan struct{} // pokes the committer: something is done
	tend  chan struct{} // pokes the keeper: something about the lease changed

	epoch    time.Time
	lease    atomic.Int64 // end of the lease, in nanoseconds since epoch
	hungry   atomic.Bool  // the feeder waits for room
	draining atomic.Bool
	warned   atomic.Int64 // time of the last warning, in nanoseconds since epoch

	scanned  int64 // of the feeder alone: position up to which the log was looked at for news
	releases sync.WaitGroup
	storing  sync.Mutex // one commit of progress at a time
	hands    sync.Mutex // held while due redeliveries are read, and while any is taken out of hand
	nextDue  atomic.Int64

	mu     sync.Mutex
	member string // "" while not joined
	owned  map[int]*partition
}

func newConsumer(b *Broker, s driver.Subscription) *consumer {
	c := &consumer{
		b: b, sub: s, limit: max(minHeld, 4*s.Concurrency),
		log:   b.cfg.Logger.With("database", b.store.name, "topic", s.Topic, "group", s.Group),
		awake: make(chan struct{}, 1), moved: make(chan struct{}, 1), tend: make(chan struct{}, 1),
		epoch: time.Now(), owned: map[int]*partition{},
	}
	// The feeder bounds what it adds, so the dispatcher need not.
	c.queue = dispatch.New[*record](dispatch.Config{Progress: func() { poke(c.moved) }})
	return c
}

// Run implements driver.Consumer.
func (c *consumer) Run(ctx context.Context) error {
	if err := c.b.attach(c); err != nil {
		return c.errorf("run", err)
	}
	defer c.b.detach(c)
	work, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(c.b.open, stop)()
	defer context.AfterFunc(work, c.drain)()

	keep, rest := context.WithCancel(context.Background())
	var feeding, keeping sync.WaitGroup
	feeding.Go(func() { c.feed(work) })
	keeping.Go(func() { c.keep(keep) })
	keeping.Go(func() { c.commitLoop(keep) })
	c.queue.Work(work, c.sub.Concurrency, c.deliver)
	feeding.Wait()
	rest()
	keeping.Wait()
	c.leave()
	if ctx.Err() == nil {
		return c.errorf("run", driver.ErrClosed)
	}
	return nil
}

func (c *consumer) group() string { return laneOf(c.sub.Topic, c.sub.Group) }

func (c *consumer) errorf(operation string, err error) error {
	return c.b.errorf(operation+" group", c.sub.Topic, c.sub.Group, err)
}

// drain begins the end of Run: partitions are given up one by one as their
// handlers return.
func (c *consumer) drain() {
	c.draining.Store(true)
	poke(c.tend)
}

// complain logs what is being mended, at most once a second.
func (c *consumer) complain(message string, err error) {
	now, last := int64(time.Since(c.epoch)), c.warned.Load()
	if (last == 0 || now-last > int64(time.Second)) && c.warned.CompareAndSwap(last, now) {
		c.log.Warn("sqlbus: "+message+", it will be tried again", "error", fmt.Sprint(err))
	}
}

// leased reports whether the partitions are still ours by the clock.
func (c *consumer) leased() bool { return int64(time.Since(c.epoch)) < c.lease.Load() }

func (c *consumer) partitions() []*partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*partition, 0, len(c.owned))
	for _, p := range c.owned {
		all = append(all, p)
	}
	return all
}
