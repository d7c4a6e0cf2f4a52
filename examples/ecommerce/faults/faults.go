// Package faults makes the shop's services fail and dawdle on purpose, so that
// anybody can watch what the library makes of it.
package faults

import (
	"context"
	"database/sql"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus"
)

// ErrInjected is the error of a handler that failed on purpose.
var ErrInjected = errors.New("injected fault")

// Faults decides, by its seed, when to fail and how long to take. A nil *Faults
// never does either.
type Faults struct {
	fail    float64
	latency time.Duration

	mu   sync.Mutex
	dice *rand.Rand
}

// New returns Faults for one service: fail is the share of the tries at
// handling an event that fail, latency how long each of them takes.
func New(service string, seed uint64, fail float64, latency time.Duration) *Faults {
	return &Faults{fail: fail, latency: latency, dice: rand.New(rand.NewPCG(seed, hash(service)))}
}

// Around returns h with faults before its writes and after them: the
// transaction that h writes in must make both unseen.
func Around[T any](f *Faults, h func(context.Context, *sql.Tx, eventbus.Event[T]) error) func(context.Context, *sql.Tx, eventbus.Event[T]) error {
	return func(ctx context.Context, tx *sql.Tx, e eventbus.Event[T]) error {
		before, after := f.roll()
		if before {
			return ErrInjected
		}
		if err := h(ctx, tx, e); err != nil {
			return err
		}
		if after {
			return ErrInjected
		}
		return nil
	}
}

// Slow is a Watermill middleware that takes its time before a handler begins,
// outside of any transaction.
func (f *Faults) Slow(next message.HandlerFunc) message.HandlerFunc {
	if f == nil || f.latency == 0 {
		return next
	}
	return func(m *message.Message) ([]*message.Message, error) {
		t := time.NewTimer(f.latency)
		defer t.Stop()
		select {
		case <-t.C:
			return next(m)
		case <-m.Context().Done():
			return nil, context.Cause(m.Context())
		}
	}
}

// roll says whether to fail before the writes or after them, equally often.
func (f *Faults) roll() (before, after bool) {
	if f == nil || f.fail == 0 {
		return false, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.dice.Float64()
	return x < f.fail/2, x >= f.fail/2 && x < f.fail
}

// Share maps a name to a number in [0, 1), the same for the same seed.
func Share(seed uint64, name string) float64 {
	return rand.New(rand.NewPCG(seed, hash(name))).Float64()
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}
