package resilience

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// BulkheadConfig configures a Bulkhead. The zero value is 16 calls at a time,
// and none that wait.
type BulkheadConfig struct {
	Name string // in errors, events and metrics

	// Concurrency is how many calls there may be at a time. Defaults to 16.
	Concurrency int
	// Queue is how many more may wait for their turn. Defaults to 0.
	Queue int
	// MaxWait is how long a call waits at most. Defaults to a second.
	MaxWait time.Duration
	// Observer is told about EventRejected.
	Observer Observer
}

// Bulkhead bounds how many calls there are at a time, so that one slow
// dependency can't take all of a service's goroutines, connections and memory.
// Calls beyond that wait in a bounded queue, first come first served, for a
// bounded time; the others are turned away with ErrBulkheadFull.
type Bulkhead struct {
	cfg      atomic.Pointer[BulkheadConfig] // changed with the lock held
	rejected atomic.Int64

	_     apart
	state atomic.Uint64 // calls under way, and those that wait in the upper half
	_     apart

	mu    sync.Mutex // guards what follows, and every change of the upper half
	queue []*waiter
}

type waiter struct{ turn chan struct{} }

const oneWaits = 1 << 32

// BulkheadStats is what a Bulkhead is doing and has done since it was made.
type BulkheadStats struct {
	Running  int
	Waiting  int
	Rejected int64
}

// NewBulkhead returns a policy, or all that is wrong with cfg.
func NewBulkhead(cfg BulkheadConfig) (*Bulkhead, error) {
	cfg.Concurrency = orDefault(cfg.Concurrency, 16)
	cfg.MaxWait = orDefault(cfg.MaxWait, time.Second)
	c := checking("bulkhead", cfg.Name)
	c.that(cfg.Concurrency >= 1 && cfg.Concurrency <= 1e9, "Concurrency must be from 1 to 1e9, got %d", cfg.Concurrency)
	c.that(cfg.Queue >= 0 && cfg.Queue <= 1e6, "Queue must be from 0 to 1e6, got %d", cfg.Queue)
	c.positive("MaxWait", cfg.MaxWait)
	if err := c.err(); err != nil {
		return nil, err
	}
	b := &Bulkhead{}
	b.cfg.Store(&cfg)
	return b, nil
}

// Do calls fn when it is its turn.
func (b *Bulkhead) Do(ctx context.Context, fn func(ctx context.Context) error) error {
	if !b.enterAtOnce() {
		if err := b.enter(ctx); err != nil {
			return err
		}
	}
	defer b.leave()
	return fn(ctx)
}

func (b *Bulkhead) do(ctx context.Context, c call) error {
	if !b.enterAtOnce() {
		if err := b.enter(ctx); err != nil {
			return err
		}
		c.again()
	}
	defer b.leave()
	return c.run(ctx)
}

// enterAtOnce takes a place if there is one and nobody waits.
func (b *Bulkhead) enterAtOnce() bool {
	places := b.places()
	for {
		s := b.state.Load()
		if s >= places {
			return false
		}
		if b.state.CompareAndSwap(s, s+1) {
			return true
		}
	}
}

// enter waits for a place if need be.
func (b *Bulkhead) enter(ctx context.Context) error {
	if err := ended(ctx); err != nil {
		return b.gone(err)
	}
	w := b.enqueue()
	if w == nil {
		return nil
	}
	if w.turn == nil {
		return b.reject()
	}
	t := time.NewTimer(b.cfg.Load().MaxWait)
	defer t.Stop()
	select {
	case <-w.turn:
		return nil
	case <-t.C:
		if b.withdraw(w) {
			return b.reject()
		}
		return nil
	case <-ctx.Done():
		if !b.withdraw(w) {
			b.leave()
		}
		return b.gone(ended(ctx))
	}
}

// gone is the error of a caller that waits no longer.
func (b *Bulkhead) gone(cause error) error {
	return &waitError{policy: "bulkhead" + quoted(b.cfg.Load().Name), cause: cause}
}

var noPlace = &waiter{}

// enqueue returns nil when there was a place after all, and a waiter without a
// turn when the queue is full.
func (b *Bulkhead) enqueue() *waiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		s := b.state.Load()
		switch {
		case s < b.places():
			if b.state.CompareAndSwap(s, s+1) {
				return nil
			}
		case len(b.queue) >= b.cfg.Load().Queue:
			return noPlace
		case b.state.CompareAndSwap(s, s+oneWaits):
			w := &waiter{make(chan struct{})}
			b.queue = append(b.queue, w)
			return w
		}
	}
}

// withdraw takes w out of the queue. It reports false when w has got its turn.
func (b *Bulkhead) withdraw(w *waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.queue, w)
	if i < 0 {
		return false
	}
	b.queue = slices.Delete(b.queue, i, i+1)
	b.state.Add(-oneWaits & (1<<64 - 1))
	return true
}

// leave gives the place back. While somebody waits nobody else takes it.
func (b *Bulkhead) leave() {
	if b.state.Add(1<<64-1) >= oneWaits {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.handOver()
	}
}

// handOver gives free places to those who wait. It is called with the lock held.
func (b *Bulkhead) handOver() {
	for len(b.queue) > 0 && b.state.Load()%oneWaits < b.places() {
		b.state.Add((1 - oneWaits) & (1<<64 - 1))
		close(b.queue[0].turn)
		b.queue = slices.Delete(b.queue, 0, 1)
	}
}

func (b *Bulkhead) places() uint64 { return uint64(b.cfg.Load().Concurrency) }

func (b *Bulkhead) reject() error {
	b.rejected.Add(1)
	cfg := b.cfg.Load()
	err := &RejectedError{Policy: cfg.Name, Reason: ErrBulkheadFull}
	cfg.Observer.tell(Event{Kind: EventRejected, Policy: cfg.Name, Type: "bulkhead", Err: err})
	return err
}

// Stats returns what the policy is doing and has done.
func (b *Bulkhead) Stats() BulkheadStats {
	s := b.state.Load()
	return BulkheadStats{Running: int(s % oneWaits), Waiting: int(s / oneWaits), Rejected: b.rejected.Load()}
}

func (b *Bulkhead) describe() Description {
	cfg := b.cfg.Load()
	s := fmt.Sprintf("%d at a time", cfg.Concurrency)
	if cfg.Queue > 0 {
		s += fmt.Sprintf(", %d waiting up to %v", cfg.Queue, cfg.MaxWait)
	}
	return Description{Kind: "bulkhead", Name: cfg.Name, Settings: s}
}
