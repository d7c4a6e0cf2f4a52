package main

import (
	"context"
	"time"

	retry4 "github.com/avast/retry-go/v4"
	retry5 "github.com/avast/retry-go/v5"
	"github.com/cenkalti/backoff/v5"
	"github.com/eapache/go-resiliency/retrier"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	goresilience "github.com/slok/goresilience/retry"

	"github.com/millrace-go/millrace/resilience"
)

func retries() group {
	ours := newRetry()
	safe := failsafe.With(failsafeRetry(retrypolicy.NewBuilder[any]()))
	eapache := retrier.New(retrier.ExponentialBackoff(3, time.Millisecond), nil)
	avast := retry5.New(retry5.Attempts(3))
	slok := goresilience.New(goresilience.Config{})
	nullaryValue := func() (int, error) { return value(ctx) }
	return group{title: "retry", variants: []variant{
		shared("by hand: a loop", func() error { return handRetry(ctx, 3, work) }),
		shared("millrace", func() error { return ours.Do(ctx, work) }),
		shared("failsafe-go", func() error { return safe.Run(nullary) }),
		shared("eapache retrier", func() error { return eapache.Run(nullary) }),
		shared("avast/retry-go v5, without the context", func() error { return avast.Do(nullary) }),
		shared("avast/retry-go v5, with it", func() error {
			return retry5.New(retry5.Attempts(3), retry5.Context(ctx)).Do(nullary)
		}),
		shared("avast/retry-go v4", func() error { return retry4.Do(nullary, retry4.Attempts(3), retry4.Context(ctx)) }),
		shared("cenkalti/backoff v5", func() error {
			_, err := backoff.Retry(ctx, nullaryValue, backoff.WithMaxTries(3))
			return err
		}),
		shared("goresilience", func() error { return slok.Run(ctx, work) }),
	}}
}

func newRetry() *resilience.Retry {
	return resilience.Must(resilience.NewRetry(resilience.RetryConfig{Attempts: 3}))
}

func failsafeRetry[R any](b retrypolicy.Builder[R]) failsafe.Policy[R] {
	return b.WithMaxRetries(2).WithBackoff(time.Millisecond, time.Second).Build()
}

// handRetry tries n times.
func handRetry(ctx context.Context, n int, fn func(context.Context) error) (err error) {
	for range n {
		if err = fn(ctx); err == nil {
			return nil
		}
	}
	return err
}
