package resilience

import (
	"fmt"
	"math"
	"sync/atomic"
)

// BudgetConfig configures a Budget.
type BudgetConfig struct {
	// Ratio is how many retries each call pays for, up to 1. Defaults to 0.2.
	Ratio float64
	// Burst is how many retries may be saved up, and how many there are at the
	// start. Defaults to 100.
	Burst int
}

// Budget bounds retries by the traffic: however many calls fail, there are never
// more retries than Burst + Ratio × calls. It is what keeps a dependency that
// has just died from being hit by several times its load. It has no clock: a
// service without traffic earns no retries. It is safe for concurrent use, and
// to be shared by policies, Retry and Hedge, that burden the same dependency; a
// call that a pipeline takes through several of them counts once.
//
// The idea is the retry throttling of gRPC
// (https://github.com/grpc/proposal/blob/master/A6-client-retries.md), paid by
// calls as in Finagle's RetryBudget.
type Budget struct {
	ratio, burst, saved atomic.Int64 // in thousandths of a retry
}

const perRetry = 1000

// NewBudget returns a full budget.
func NewBudget(cfg BudgetConfig) (*Budget, error) {
	cfg.Ratio, cfg.Burst = orDefault(cfg.Ratio, 0.2), orDefault(cfg.Burst, 100)
	c := checking("budget", "")
	c.that(cfg.Ratio >= 1./perRetry && cfg.Ratio <= 1, "Ratio must be from 0.001 to 1, got %v", cfg.Ratio)
	c.that(cfg.Burst >= 1 && cfg.Burst <= 1e9, "Burst must be from 1 to 1e9, got %d", cfg.Burst)
	if err := c.err(); err != nil {
		return nil, err
	}
	b := &Budget{}
	b.ratio.Store(int64(cfg.Ratio*perRetry + 1e-6)) // so that 0.57, whose product is below 570, is that
	b.burst.Store(int64(cfg.Burst) * perRetry)
	b.saved.Store(b.burst.Load())
	return b, nil
}

// Unlimited returns a budget that allows every retry. It is for calls whose
// number is bounded otherwise, such as those of a nightly job.
func Unlimited() *Budget { return &Budget{} }

// Left returns how many retries there may be now, math.MaxInt if Unlimited.
func (b *Budget) Left() int {
	if b.burst.Load() == 0 {
		return math.MaxInt
	}
	return int(b.saved.Load() / perRetry)
}

// earn counts a call. While nothing has been spent, that is two loads.
func (b *Budget) earn() {
	for {
		saved, burst := b.saved.Load(), b.burst.Load()
		if saved >= burst || b.saved.CompareAndSwap(saved, min(burst, saved+b.ratio.Load())) {
			return
		}
	}
}

// spend takes a retry, if there is one.
func (b *Budget) spend() bool {
	if b.burst.Load() == 0 {
		return true
	}
	for {
		saved := b.saved.Load()
		if saved < perRetry {
			return false
		}
		if b.saved.CompareAndSwap(saved, saved-perRetry) {
			return true
		}
	}
}

// refund gives back a retry that did not happen.
func (b *Budget) refund() {
	for {
		saved, burst := b.saved.Load(), b.burst.Load()
		if saved >= burst || b.saved.CompareAndSwap(saved, min(burst, saved+perRetry)) {
			return
		}
	}
}

// String returns the budget in words.
func (b *Budget) String() string {
	if b.burst.Load() == 0 {
		return "unlimited"
	}
	return fmt.Sprintf("%g per call, at most %d saved", float64(b.ratio.Load())/perRetry, b.burst.Load()/perRetry)
}
