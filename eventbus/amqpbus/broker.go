package amqpbus

import (
	"context"
	"fmt"
	"sync"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Broker is a client of a RabbitMQ; see the package comment. It is safe for
// concurrent use.
type Broker struct {
	cfg Config

	// RabbitMQ makes a connection that publishes wait while it is low on memory or
	// disk, and any that publishes too fast. Acknowledgements must not wait with
	// it, nor what members say behind events.
	publishing, consuming, speaking *link

	open  context.Context // ends with Close
	close context.CancelFunc

	calls    sync.WaitGroup // of short calls; added to under mu while open, or by a running consumer
	shutdown sync.Once

	mu        sync.Mutex
	pipes     map[string]*pipe // by topic
	consumers int              // running

	creating chan struct{} // holds one while a group is created: the lock on the broker is this client's
}

var _ driver.Broker = (*Broker)(nil)

// Open connects to a RabbitMQ. It reports every invalid field of c, and why none
// of the hosts lets this client in. ctx bounds the opening only; it fails within
// ten seconds in any case. The caller closes the Broker.
func Open(ctx context.Context, c Config) (*Broker, error) {
	c = c.withDefaults()
	if err := c.validate(); err != nil {
		return nil, err
	}
	b := &Broker{cfg: c, pipes: map[string]*pipe{}, creating: make(chan struct{}, 1)}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	s, err := b.cfg.dial(ctx, "publishing")
	if err != nil {
		return nil, fmt.Errorf("amqpbus: open %w", err)
	}
	b.publishing, b.consuming, b.speaking = newLink(&b.cfg, "publishing"), newLink(&b.cfg, "consuming"), newLink(&b.cfg, "members")
	b.open, b.close = context.WithCancel(context.Background())
	b.publishing.adopt(s)
	return b, nil
}

// Capabilities implements driver.Broker.
func (b *Broker) Capabilities() driver.Capabilities {
	return driver.Capabilities{KeyOrder: true, KeyedConcurrency: true, Groups: true, DelayedRedelivery: true, Durable: true, MaxPayload: b.cfg.MaxPayload}
}

// Subscribe implements driver.Broker.
func (b *Broker) Subscribe(ctx context.Context, s driver.Subscription) (driver.Consumer, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if err := checkTopic(s.Topic); err != nil {
		return nil, err
	}
	n := namesOf(s.Topic, s.Group, b.cfg.Queues, b.cfg.QueueType)
	err := b.call(ctx, func(ctx context.Context, on *session) error {
		if b.cfg.NoProvision {
			return on.checkGroup(n)
		}
		return b.createGroup(ctx, on, n, s.Start)
	})
	if err != nil {
		return nil, fmt.Errorf("amqpbus: subscribe group %q to topic %q: %w", s.Group, s.Topic, err)
	}
	return newConsumer(b, s, n), nil
}

// call runs f on the consuming connection until ctx ends or the broker is
// closed. After that f may go on for as long as its connection does not answer.
func (b *Broker) call(ctx context.Context, f func(context.Context, *session) error) error {
	b.mu.Lock()
	if b.open.Err() != nil {
		b.mu.Unlock()
		return driver.ErrClosed
	}
	b.calls.Add(1)
	b.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.open, func() { cancel(driver.ErrClosed) })()
	ended := make(chan error, 1)
	go func() {
		defer b.calls.Done()
		ended <- b.retry(ctx, f)
	}()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return withReason(context.Cause(ctx), b.consuming.reason())
	}
}

// retry runs f again when its connection was lost.
func (b *Broker) retry(ctx context.Context, f func(context.Context, *session) error) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s, err := b.consuming.get(ctx)
		if err != nil {
			return err
		}
		if err = f(ctx, s); err == nil || s.alive() {
			return err
		}
		wait(ctx, minBackoff)
	}
}

// within runs f until ctx ends or for answerTimeout. After that f may go on for
// as long as its connection does not answer. Only for running consumers.
func (b *Broker) within(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	ended := make(chan error, 1)
	b.calls.Go(func() { ended <- f() })
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// attach begins the run of a consumer; detach ends it.
func (b *Broker) attach() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open.Err() != nil {
		return driver.ErrClosed
	}
	b.consumers++
	return nil
}

func (b *Broker) detach() {
	b.mu.Lock()
	b.consumers--
	last := b.consumers == 0 && b.open.Err() != nil
	b.mu.Unlock()
	if last {
		b.release()
	}
}

// Close ends running consumers and closes the connections: that of consumers
// when the last has drained its handlers, so that what they did is not done
// again.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.close()
	running, pipes := b.consumers, make([]*pipe, 0, len(b.pipes))
	for _, p := range b.pipes {
		pipes = append(pipes, p)
	}
	b.mu.Unlock()
	b.publishing.close()
	for _, p := range pipes {
		p.done.Wait()
	}
	if running == 0 {
		b.release()
	}
	return nil
}

func (b *Broker) release() {
	b.shutdown.Do(func() {
		b.speaking.close()
		b.consuming.close()
		b.calls.Wait()
	})
}
