package main

import (
	"context"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"github.com/failsafe-go/failsafe-go/timeout"
	"github.com/slok/goresilience"
	slokbreaker "github.com/slok/goresilience/circuitbreaker"
	slokretry "github.com/slok/goresilience/retry"
	sloktimeout "github.com/slok/goresilience/timeout"

	"github.com/millrace-go/millrace/resilience"
)

func pipelines() group {
	ours := newPipeline()
	safe := failsafe.With(failsafePolicies(retrypolicy.NewBuilder[any]())...)
	withContext := func(e failsafe.Execution[any]) error { return work(e.Context()) }
	slok := goresilience.RunnerChain(
		slokretry.NewMiddleware(slokretry.Config{}),
		slokbreaker.NewMiddleware(slokbreaker.Config{}),
		sloktimeout.NewMiddleware(sloktimeout.Config{Timeout: time.Second}),
	)
	return group{title: "retry > breaker > timeout", variants: []variant{
		shared("by hand, the timer made when asked for", handPipeline(handTimeout)),
		shared("by hand, the same with time.Now and sync.Once", handPipeline(lazyTimeout)),
		shared("by hand, context.WithTimeout", handPipeline(standardTimeout)),
		shared("millrace", func() error { return ours.Do(ctx, work) }),
		shared("failsafe-go", func() error { return safe.Run(nullary) }),
		shared("failsafe-go, with the context", func() error { return safe.WithContext(ctx).RunWithExecution(withContext) }),
		shared("goresilience", func() error { return slok.Run(ctx, work) }),
	}}
}

func newPipeline() *resilience.Pipeline {
	return resilience.Must(resilience.NewPipeline("", newRetry(), newBreaker(resilience.CircuitBreakerConfig{}), newTimeout()))
}

// failsafePolicies is the same of failsafe-go, outermost first.
func failsafePolicies[R any](retry retrypolicy.Builder[R]) []failsafe.Policy[R] {
	return []failsafe.Policy[R]{failsafeRetry(retry), failsafeBreaker[R](), timeout.New[R](time.Second)}
}

func handPipeline(timeout func(context.Context, func(context.Context) error) error) func() error {
	breaker := &handBreaker{}
	timed := func(ctx context.Context) error { return timeout(ctx, work) }
	guarded := func(ctx context.Context) error { return breaker.Do(ctx, timed) }
	return func() error { return handRetry(ctx, 3, guarded) }
}

func gets() group {
	retry, pipeline := newRetry(), newPipeline()
	safe := failsafe.With(failsafeRetry(retrypolicy.NewBuilder[any]()))
	get := func() (any, error) { return value(ctx) }
	none := func(_ int, err error) error { return err }
	return group{title: "a value through a retry", variants: []variant{
		shared("by hand: a loop", func() error { return none(handGet(ctx, 3, value)) }),
		shared("millrace", func() error { return none(resilience.Get(ctx, retry, value)) }),
		shared("millrace, through retry > breaker > timeout", func() error { return none(resilience.Get(ctx, pipeline, value)) }),
		shared("failsafe-go", func() error {
			_, err := safe.Get(get)
			return err
		}),
	}}
}

func handGet[T any](ctx context.Context, n int, fn func(context.Context) (T, error)) (v T, err error) {
	for range n {
		if v, err = fn(ctx); err == nil {
			return v, nil
		}
	}
	return v, err
}
