package main

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/eapache/go-resiliency/semaphore"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/failsafe-go/failsafe-go/ratelimiter"
	goresilience "github.com/slok/goresilience/bulkhead"
	"golang.org/x/time/rate"

	"github.com/millrace-go/millrace/resilience"
)

const places = 64 // of bulkheads

func bulkheads() group {
	hand, channel := &handBulkhead{}, make(chan struct{}, places)
	ours := resilience.Must(resilience.NewBulkhead(resilience.BulkheadConfig{Concurrency: places}))
	safe := failsafe.With[any](bulkhead.New[any](places))
	eapache := semaphore.New(places, time.Second)
	slok := goresilience.New(goresilience.Config{Workers: places, MaxWaitTime: time.Second})
	return group{title: "bulkhead", variants: []variant{
		shared("by hand: an atomic counter", func() error { return hand.Do(ctx, work) }),
		shared("by hand: a channel", func() error {
			select {
			case channel <- struct{}{}:
			default:
				return errFull
			}
			err := work(ctx)
			<-channel
			return err
		}),
		shared("millrace", func() error { return ours.Do(ctx, work) }),
		shared("failsafe-go", func() error { return safe.Run(nullary) }),
		shared("eapache semaphore", func() error {
			if err := eapache.Acquire(); err != nil {
				return err
			}
			err := work(ctx)
			eapache.Release()
			return err
		}),
		shared("goresilience", func() error { return slok.Run(ctx, work) }),
	}}
}

var errFull = errors.New("full")

type handBulkhead struct{ running atomic.Int64 }

func (b *handBulkhead) Do(ctx context.Context, fn func(context.Context) error) error {
	defer b.running.Add(-1)
	if b.running.Add(1) > places {
		return errFull
	}
	return fn(ctx)
}

// rateLimiters have limits that are not reached.
func rateLimiters() group {
	const calls, burst = 1e9, 1e9 // a second, so that a goroutine that was held up is not too late
	hand := &handRate{}
	ours := newRateLimiter(resilience.RateLimiterConfig{Calls: calls, Burst: burst})
	hundred := newRateLimiter(resilience.RateLimiterConfig{Calls: calls, Burst: 100, MaxWait: time.Second})
	ten := newRateLimiter(resilience.RateLimiterConfig{Calls: calls, Burst: 10, MaxWait: time.Second})
	safe := failsafe.With[any](ratelimiter.NewBursty[any](math.MaxUint32, time.Second))
	standard := rate.NewLimiter(calls, burst)
	return group{title: "rate limiter", variants: []variant{
		shared("by hand: a clock reading and an atomic instant", func() error { return hand.Do(ctx, work) }),
		shared("millrace", func() error { return ours.Do(ctx, work) }),
		shared("millrace, bursts of 100", func() error { return hundred.Do(ctx, work) }),
		shared("millrace, bursts of 10", func() error { return ten.Do(ctx, work) }),
		shared("golang.org/x/time/rate", func() error {
			if !standard.Allow() {
				return errFull
			}
			return work(ctx)
		}),
		shared("failsafe-go", func() error { return safe.Run(nullary) }),
	}}
}

func newRateLimiter(cfg resilience.RateLimiterConfig) *resilience.RateLimiter {
	return resilience.Must(resilience.NewRateLimiter(cfg))
}

// handRate is a generic cell rate algorithm with an interval of a nanosecond.
type handRate struct{ free atomic.Int64 }

func (l *handRate) Do(ctx context.Context, fn func(context.Context) error) error {
	now := sinceStart()
	for {
		free := l.free.Load()
		if free-int64(time.Second) > now {
			return errFull
		}
		if l.free.CompareAndSwap(free, max(free, now)+1) {
			return fn(ctx)
		}
	}
}

func adaptiveLimiters() group {
	hand := &handAdaptive{}
	ours := resilience.Must(resilience.NewAdaptiveLimiter(resilience.AdaptiveLimiterConfig{}))
	safe := failsafe.With[any](adaptivelimiter.NewWithDefaults[any]())
	return group{title: "adaptive limiter", variants: []variant{
		shared("by hand: a counter, two clock readings, a sum", func() error { return hand.Do(ctx, work) }),
		shared("millrace", func() error { return ours.Do(ctx, work) }),
		shared("failsafe-go", func() error { return safe.Run(nullary) }),
	}}
}

// handAdaptive measures what a limit could be found by.
type handAdaptive struct{ running, calls, total atomic.Int64 }

func (l *handAdaptive) Do(ctx context.Context, fn func(context.Context) error) error {
	defer l.running.Add(-1)
	if l.running.Add(1) > places {
		return errFull
	}
	begun := sinceStart()
	err := fn(ctx)
	l.total.Add(sinceStart() - begun)
	l.calls.Add(1)
	return err
}
