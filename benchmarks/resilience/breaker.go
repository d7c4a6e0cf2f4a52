package main

import (
	"errors"
	"time"

	"github.com/eapache/go-resiliency/breaker"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	goresilience "github.com/slok/goresilience/circuitbreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/millrace-go/millrace/resilience"
)

const period = 10 * time.Second // of breakers that look at a time

// short is a period whose steps are over before ours have had two million calls,
// of which more are not counted.
const short = 500 * time.Millisecond

func breakers() group {
	hand, ours := &handBreaker{}, newBreaker(resilience.CircuitBreakerConfig{})
	sony := gobreaker.NewCircuitBreaker[any](gobreaker.Settings{})
	eapache := breaker.New(5, 1, period)
	safe := failsafe.With(failsafeBreaker[any]())
	return group{title: "breaker, failures in a row", variants: []variant{
		shared("by hand: two atomic loads", func() error { return hand.Do(ctx, work) }),
		shared("millrace", func() error { return ours.Do(ctx, work) }),
		shared("gobreaker v2", throughSony(sony)),
		shared("eapache breaker", func() error { return eapache.Run(nullary) }),
		shared("failsafe-go", func() error { return safe.Run(nullary) }),
	}}
}

func breakersByCalls() group {
	hand, ours := &handRing{}, newBreaker(resilience.CircuitBreakerConfig{WindowCalls: 100})
	safe := failsafe.With(circuitbreaker.NewBuilder[any]().WithFailureThresholdRatio(50, 100).Build())
	slok := goresilience.New(goresilience.Config{})
	return group{title: "breaker, last 100 calls", variants: []variant{
		shared("by hand: a ring of atomics", func() error { return hand.Do(ctx, work) }),
		shared("millrace", func() error { return ours.Do(ctx, work) }),
		shared("failsafe-go", func() error { return safe.Run(nullary) }),
		shared("goresilience", func() error { return slok.Run(ctx, work) }),
	}}
}

func breakersByTime() group {
	hand, ours := &handBuckets{}, newBreaker(resilience.CircuitBreakerConfig{WindowPeriod: short})
	sony := gobreaker.NewCircuitBreaker[any](gobreaker.Settings{Interval: short, BucketPeriod: short / 10})
	safe := failsafe.With(circuitbreaker.NewBuilder[any]().WithFailureRateThreshold(0.5, 20, short).Build())
	return group{title: "breaker, last half a second", variants: []variant{
		shared("by hand: ten atomics", func() error { return hand.Do(ctx, work) }),
		shared("millrace", func() error { return ours.Do(ctx, work) }),
		shared("gobreaker v2", throughSony(sony)),
		shared("failsafe-go", func() error { return safe.Run(nullary) }),
	}}
}

// breakersBySpeed has no peers: none of them counts slow calls.
func breakersBySpeed() group {
	hand := &handSlow{}
	calls := newBreaker(resilience.CircuitBreakerConfig{WindowCalls: 100, SlowCall: period})
	seconds := newBreaker(resilience.CircuitBreakerConfig{WindowPeriod: period, SlowCall: period})
	return group{title: "breaker, slow calls", variants: []variant{
		shared("by hand: a ring of atomics and two clock readings", func() error { return hand.Do(ctx, work) }),
		shared("millrace, last 100 calls", func() error { return calls.Do(ctx, work) }),
		shared("millrace, last 10 s", func() error { return seconds.Do(ctx, work) }),
	}}
}

func openBreakers() group {
	hand, ours := &handBreaker{}, newBreaker(resilience.CircuitBreakerConfig{})
	hand.open.Store(true)
	ours.Isolate()
	timed := newBreaker(resilience.CircuitBreakerConfig{Failures: 1, OpenFor: time.Hour})
	sony := gobreaker.NewCircuitBreaker[any](gobreaker.Settings{Timeout: time.Hour, ReadyToTrip: func(gobreaker.Counts) bool { return true }})
	eapache := breaker.New(1, 1, time.Hour)
	policy := circuitbreaker.NewBuilder[any]().WithDelay(time.Hour).Build()
	policy.Open()
	safe := failsafe.With(policy)
	for _, fail := range []func() error{
		func() error { return timed.Do(ctx, failing) },
		func() error { _, err := sony.Execute(func() (any, error) { return nil, failing(ctx) }); return err },
		func() error { return eapache.Run(func() error { return failing(ctx) }) },
	} {
		if !errors.Is(fail(), errFailed) {
			panic("a breaker hid the error of a call")
		}
	}
	return group{title: "open breaker turns away", variants: []variant{
		shared("by hand: an atomic load", turnedAway(func() error { return hand.Do(ctx, work) })),
		shared("millrace, isolated", turnedAway(func() error { return ours.Do(ctx, work) })),
		shared("millrace, open for a time", turnedAway(func() error { return timed.Do(ctx, work) })),
		shared("gobreaker v2", turnedAway(throughSony(sony))),
		shared("eapache breaker", turnedAway(func() error { return eapache.Run(nullary) })),
		shared("failsafe-go", turnedAway(func() error { return safe.Run(nullary) })),
	}}
}

func newBreaker(cfg resilience.CircuitBreakerConfig) *resilience.CircuitBreaker {
	return resilience.Must(resilience.NewCircuitBreaker(cfg))
}

func failsafeBreaker[R any]() failsafe.Policy[R] {
	return circuitbreaker.NewBuilder[R]().WithFailureThreshold(5).Build()
}

func throughSony(b *gobreaker.CircuitBreaker[any]) func() error {
	fn := func() (any, error) { return nil, work(ctx) }
	return func() error {
		_, err := b.Execute(fn)
		return err
	}
}
