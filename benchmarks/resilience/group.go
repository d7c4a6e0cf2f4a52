package main

import (
	"context"
	"errors"
)

// group is ways of doing the same job. The first is written by hand, and what
// ratios refer to.
type group struct {
	title    string
	bare     variant // what there is without the job; the plain call if it has no name
	variants []variant
}

// variant is one way of making a call.
type variant struct {
	name string
	// caller returns what one goroutine does again and again. What the goroutines
	// share is made before.
	caller func() func() error
}

// shared is a variant whose goroutines need nothing of their own.
func shared(name string, call func() error) variant {
	return variant{name, func() func() error { return call }}
}

func groups() []group {
	return append([]group{
		retries(), breakers(), breakersByCalls(), breakersByTime(), breakersBySpeed(), openBreakers(),
		timeouts(), watchedTimeouts(), bulkheads(), rateLimiters(), adaptiveLimiters(), hedges(),
		pipelines(), gets(), httpClients(), watchedHTTPClients(), httpServers(), grpcClients(), grpcServers(),
	}, watermillHandlers()...)
}

var ctx = context.Background()

// work is the function that policies call. It is a variable so that nothing is
// inlined.
var work = func(ctx context.Context) error {
	if ctx == nil {
		return errors.New("no context")
	}
	return nil
}

// watch is work that looks at its context, as most that waits for something.
var watch = func(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	default:
		return nil
	}
}

// value is work with a result.
var value = func(ctx context.Context) (int, error) { return 1, work(ctx) }

// nullary is work for libraries whose functions get no context.
func nullary() error { return work(ctx) }

var bareCall = shared("bare call", func() error { return work(ctx) })

// turnedAway is for calls that must fail.
func turnedAway(call func() error) func() error {
	return func() error {
		if call() == nil {
			return errors.New("the call was let through")
		}
		return nil
	}
}
