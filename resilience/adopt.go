package resilience

import (
	"math"
	"runtime"
)

// succeed makes next, which is unused yet, the successor of old in a Registry.
// What has a state that limits calls stays the same object, and takes over the
// settings of next by commit: whoever holds it, calls under way included, goes on
// with the one and only state. Of the others next takes the place, and
// shares the counts. Policies of different kinds have nothing in common.
func succeed(old, next Policy) (use Policy, commit func()) {
	switch next := next.(type) {
	case *CircuitBreaker:
		if old, ok := old.(*CircuitBreaker); ok {
			return old, func() { old.become(next) }
		}
	case *Bulkhead:
		if old, ok := old.(*Bulkhead); ok {
			return old, func() { old.become(next) }
		}
	case *RateLimiter:
		if old, ok := old.(*RateLimiter); ok {
			return old, func() { old.become(next) }
		}
	case *AdaptiveLimiter:
		if old, ok := old.(*AdaptiveLimiter); ok {
			return old, func() { old.become(next) }
		}
	case *Timeout:
		if old, ok := old.(*Timeout); ok {
			return next, func() { next.timedOut = old.timedOut }
		}
	case *Retry:
		if old, ok := old.(*Retry); ok {
			return next, func() { next.stats = old.stats }
		}
	case *Hedge:
		if old, ok := old.(*Hedge); ok {
			return next, func() { next.inherit(old) }
		}
	}
	return next, func() {}
}

// inherit takes over the estimate too, if both begin with the same one and
// follow the same quantile.
func (h *Hedge) inherit(old *Hedge) {
	h.stats = old.stats
	if h.cfg.Quantile == old.cfg.Quantile && h.cfg.After == old.cfg.After {
		h.after.Store(old.after.Load())
	}
}

// become takes over the settings of next; what is saved is capped by them.
func (b *Budget) become(next *Budget) {
	b.ratio.Store(next.ratio.Load())
	b.burst.Store(next.burst.Load())
	for {
		saved, burst := b.saved.Load(), b.burst.Load()
		if saved <= burst || b.saved.CompareAndSwap(saved, burst) {
			return
		}
	}
}

// become takes over the settings of next and keeps the state. Calls under way
// are not counted.
func (b *CircuitBreaker) become(next *CircuitBreaker) {
	cfg := next.period.Load().cfg
	for {
		p := b.period.Load()
		if b.period.CompareAndSwap(p, p.under(cfg)) {
			return
		}
	}
}

// under returns the period as it goes on with other settings: not longer than
// they say, and with the counts if the window's shape is the same.
func (p *period) under(cfg *CircuitBreakerConfig) *period {
	switch p.state {
	case Open:
		return cfg.openUntil(min(p.end, now()+int64(cfg.OpenFor)))
	case HalfOpen:
		return cfg.halfOpen()
	case Isolated:
		return cfg.isolated()
	}
	to := cfg.closed()
	to.window.inherit(p.window)
	return to
}

func (w *consecutive) inherit(old window) {
	if old, ok := old.(*consecutive); ok {
		w.row.Store(old.row.Load())
	}
}

func (w *lastCalls) inherit(old window) {
	from, ok := old.(*lastCalls)
	if !ok || len(from.ring) != len(w.ring) {
		return
	}
	w.next.Store(from.next.Load())
	for i := range from.ring {
		o := from.ring[i].Load()
		w.ring[i].Store(o)
		w.failures.Add(int64(outcome(o) & failed))
		w.slows.Add(int64(outcome(o)&slow) / int64(slow))
	}
}

func (w *lastPeriod) inherit(old window) {
	from, ok := old.(*lastPeriod)
	if !ok || from.width != w.width {
		return
	}
	for i := range from.buckets {
		w.buckets[i].calls.word.Store(from.buckets[i].calls.word.Load())
		w.buckets[i].slows.word.Store(from.buckets[i].slows.word.Load())
	}
}

// become takes over the settings of next. When there are fewer places, the calls
// in excess go on, and nobody enters before enough of them have left; when there
// are more, those who wait get them.
func (b *Bulkhead) become(next *Bulkhead) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cfg.Store(next.cfg.Load())
	b.handOver()
}

// become takes over the settings of next. Calls that could begin at once still
// can, up to the new burst; calls that wait have taken their places, and others
// come after them.
func (l *RateLimiter) become(next *RateLimiter) {
	old, p, at := l.pace.Load(), next.pace.Load(), now()
	ahead := old.free.Swap(moved) - at
	debt := max(0, ahead-old.slack-old.interval)
	saved := math.Max(0, float64(old.slack+old.interval-max(0, ahead))/float64(old.interval)) + float64(old.pocket.empty())
	saved = math.Min(float64(p.cfg.Burst), saved)
	places := min(p.pocket.size, int64(saved))
	p.pocket.fill(places)
	spent := float64(p.cfg.Burst) - float64(p.pocket.size) - (saved - float64(places))
	p.free.Store(at + int64(spent*float64(p.interval)) + debt)
	l.pace.Store(p)
}

// become takes over the settings of next; the limit moves to their bounds.
func (l *AdaptiveLimiter) become(next *AdaptiveLimiter) {
	for !l.updating.CompareAndSwap(false, true) {
		runtime.Gosched()
	}
	defer l.updating.Store(false)
	cfg := next.cfg.Load()
	l.cfg.Store(cfg)
	l.exact = math.Max(float64(cfg.Min), math.Min(float64(cfg.Max), l.exact))
	l.measure = 0 // with another limit, a measurement would show calls that wait
	l.limit.Store(int64(l.exact))
}
