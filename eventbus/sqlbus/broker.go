package sqlbus

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Broker is a broker in a SQL database; see the package comment. It is safe for
// concurrent use, by several Brokers on the database as well.
type Broker struct {
	cfg    Config
	engine engine
	store  *store

	open  context.Context // ends with Close
	close context.CancelFunc

	dueChanged chan struct{}  // pokes the housekeeper
	calls      sync.WaitGroup // of short calls; added to under mu while open
	keeping    sync.WaitGroup // housekeepers

	mu        sync.Mutex
	consumers map[*consumer]struct{} // running
	shutdown  sync.Once
}

var _ driver.Broker = (*Broker)(nil)

// Open opens the file at path, which is relative to the working directory if
// not absolute. Unless c says otherwise, it creates the file, the directories
// above it and the tables where they are missing. It reports every invalid
// field of c, a file that is no SQLite database or that can't be written to,
// and tables of a newer version. ctx bounds the opening only. The caller closes
// the Broker.
func Open(ctx context.Context, path string, c Config) (*Broker, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	path, err := checkPath(path)
	if err != nil {
		return nil, err
	}
	f, err := openFile(ctx, path, !c.NoProvision)
	if err != nil {
		return nil, fmt.Errorf("sqlbus: open %w", err)
	}
	return newBroker(f, c), nil
}

func newBroker(e engine, c Config) *Broker {
	b := &Broker{cfg: c, engine: e, store: e.facts(), dueChanged: make(chan struct{}, 1), consumers: map[*consumer]struct{}{}}
	b.open, b.close = context.WithCancel(context.Background())
	e.watch(b)
	b.keeping.Go(b.keepHouse)
	b.keeping.Go(b.sweepAll)
	return b
}

// Capabilities implements driver.Broker.
func (b *Broker) Capabilities() driver.Capabilities {
	return driver.Capabilities{
		KeyOrder: true, KeyedConcurrency: true, Groups: true, Replay: true, Seek: true,
		Delay: true, DelayedRedelivery: true, Durable: true, MaxPayload: b.cfg.MaxPayload,
	}
}

// Subscribe implements driver.Broker.
func (b *Broker) Subscribe(ctx context.Context, s driver.Subscription) (driver.Consumer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if err := b.enter(); err != nil {
		return nil, b.errorf("subscribe group", s.Topic, s.Group, err)
	}
	defer b.calls.Done()
	ctx, cancel := b.untilClosed(ctx)
	defer cancel()
	if err := b.createGroup(ctx, s); err != nil {
		return nil, b.errorf("subscribe group", s.Topic, s.Group, err)
	}
	return newConsumer(b, s), nil
}

func (b *Broker) errorf(operation, topic, group string, err error) error {
	return fmt.Errorf("sqlbus: %s %q of topic %q in %w", operation, group, topic, b.engine.explain(err))
}

func (b *Broker) createGroup(ctx context.Context, s driver.Subscription) error {
	const count = "SELECT count(*) FROM millrace_groups WHERE topic = ? AND group_name = ?"
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	n, _, err := b.store.read.within(ctx).number(count, s.Topic, s.Group)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil || n > 0 {
		return err
	}
	return b.engine.do(ctx, laneOf(s.Topic, s.Group), func(tx *session) error {
		if n, _, err := tx.number(count, s.Topic, s.Group); err != nil || n > 0 {
			return err // somebody was faster
		}
		var cursor int64
		if s.Start == driver.StartNewest {
			if cursor, _, err = b.newest(tx, s.Topic); err != nil {
				return err
			}
		}
		return b.insertGroup(tx, s.Topic, s.Group, cursor)
	})
}

// insertGroup creates the partitions of a group that are missing.
func (b *Broker) insertGroup(tx *session, topic, group string, cursor int64) error {
	d := b.store.dialect
	rows, args := make([]string, b.store.partitions), []any(nil)
	for partition := range rows {
		rows[partition] = "(?, ?, ?, ?, 0)"
		args = append(args, topic, group, partition, cursor)
	}
	_, err := tx.exec(d.insertNew+` INTO millrace_groups (topic, group_name, "partition", "cursor", token) VALUES `+strings.Join(rows, ", ")+d.unlessThere, args...)
	return err
}

func (b *Broker) newest(s *session, topic string) (position int64, ok bool, err error) {
	return s.number(b.store.dialect.newest, b.store.dialect.of(topic)...)
}

// laneOf names the transactions of a group.
func laneOf(topic, group string) string { return topic + "/" + group }

// wake tells the running consumers of topic that there may be something to read.
func (b *Broker) wake(topic string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.consumers {
		if c.sub.Topic == topic {
			poke(c.awake)
		}
	}
}

// changed is told that somebody else wrote to the database.
func (b *Broker) changed() {
	b.wakeAll()
	poke(b.dueChanged)
}

func (b *Broker) wakeAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.consumers {
		poke(c.awake)
	}
}

// enter begins a short call; calls.Done ends it.
func (b *Broker) enter() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Err() != nil {
		return driver.ErrClosed
	}
	b.calls.Add(1)
	return nil
}

// attach begins the run of a consumer; detach ends it.
func (b *Broker) attach(c *consumer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Err() != nil {
		return driver.ErrClosed
	}
	b.consumers[c] = struct{}{}
	return nil
}

func (b *Broker) detach(c *consumer) {
	b.mu.Lock()
	delete(b.consumers, c)
	last := len(b.consumers) == 0 && b.open.Err() != nil
	b.mu.Unlock()
	if last {
		_ = b.release() // nobody is left to hear of it
	}
}

// Close ends running consumers and releases the file: at once if none runs,
// else when the last has drained its handlers, so that what they did is not
// done again.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.close()
	running := len(b.consumers)
	b.mu.Unlock()
	if running > 0 {
		return nil
	}
	return b.release()
}

// release closes the file, once; later calls wait and return nil.
func (b *Broker) release() (err error) {
	b.shutdown.Do(func() {
		b.calls.Wait()
		b.keeping.Wait()
		if err = b.engine.close(); err != nil {
			err = fmt.Errorf("sqlbus: close %w", b.engine.explain(err))
		}
	})
	return err
}
