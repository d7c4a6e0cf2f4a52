package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/resilience"
)

var errBankDown = errors.New("the bank is unavailable")

// bank answers after so many failures.
type bank struct{ failures int }

func (b *bank) charge(context.Context) (string, error) {
	if b.failures > 0 {
		b.failures--
		return "", errBankDown
	}
	return "receipt 42", nil
}

func Example() {
	breaker := resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "bank"}))
	retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Backoff{Base: time.Millisecond}}))
	attempt := resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: time.Second}))
	payments := resilience.Must(resilience.NewPipeline("payments", retry, breaker, attempt))

	b := &bank{failures: 2}
	receipt, err := resilience.Get(context.Background(), payments, b.charge)
	fmt.Println(receipt, err)
	// Output: receipt 42 <nil>
}

func ExampleNewPipeline() {
	payments := resilience.Must(resilience.NewPipeline("payments",
		resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{Name: "all", After: 5 * time.Second})),
		resilience.Must(resilience.NewBulkhead(resilience.BulkheadConfig{Concurrency: 4})),
		resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{Name: "one", After: time.Second})),
	))
	fmt.Println(payments)
	for _, d := range payments.Describe() {
		fmt.Println(d.Kind, d.Settings)
	}
	// Output:
	// timeout all(5s) > bulkhead(4 at a time) > timeout one(1s)
	// timeout 5s
	// bulkhead 4 at a time
	// timeout 1s
}

// A policy of one's own is a function.
func ExamplePolicyFunc() {
	logged := resilience.PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
		err := fn(ctx)
		fmt.Println("the call returned", err)
		return err
	})
	p := resilience.Must(resilience.NewPipeline("payments", logged))
	_ = p.Do(context.Background(), func(context.Context) error { return errBankDown })
	// Output: the call returned the bank is unavailable
}

func ExampleRetry() {
	retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{
		Name:     "bank",
		Attempts: 3,
		Backoff:  resilience.Backoff{Base: time.Millisecond},
		Observer: func(e resilience.Event) { fmt.Println(e.Kind, e.Attempt) },
	}))
	err := retry.Do(context.Background(), func(context.Context) error { return errBankDown })
	fmt.Println(err)
	fmt.Println(errors.Is(err, resilience.ErrRetriesExhausted), errors.Is(err, errBankDown))
	// Output:
	// retry 1
	// retry 2
	// gave_up 3
	// resilience: retry "bank": gave up after 3 attempts (that is all): the bank is unavailable
	// true true
}

// Policies that burden the same dependency share a budget.
func ExampleBudget() {
	budget := resilience.Must(resilience.NewBudget(resilience.BudgetConfig{Ratio: 0.1, Burst: 3}))
	config := resilience.RetryConfig{Budget: budget, Backoff: resilience.Backoff{Base: time.Millisecond}}
	reads := resilience.Must(resilience.NewRetry(config))
	writes := resilience.Must(resilience.NewRetry(config))

	calls := 0
	for _, retry := range []*resilience.Retry{reads, writes, reads, writes} {
		_ = retry.Do(context.Background(), func(context.Context) error {
			calls++
			return errBankDown
		})
	}
	fmt.Println(calls, "calls instead of 12;", budget.Left(), "retries left")
	// Output: 7 calls instead of 12; 0 retries left
}

func ExampleCircuitBreaker() {
	breaker := resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "bank", Failures: 2}))
	fail := func(context.Context) error { return errBankDown }
	for range 3 {
		err := breaker.Do(context.Background(), fail)
		fmt.Println(breaker.State(), errors.Is(err, resilience.ErrOpen))
	}
	// Output:
	// closed false
	// open false
	// open true
}

// An operator may turn a dependency off and on.
func ExampleCircuitBreaker_Isolate() {
	breaker := resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "bank"}))
	succeed := func(context.Context) error { return nil }
	breaker.Isolate()
	fmt.Println(breaker.Do(context.Background(), succeed))
	breaker.Close()
	fmt.Println(breaker.Do(context.Background(), succeed))
	// Output:
	// resilience: circuit breaker "bank" is isolated, try again in 1s
	// <nil>
}

func ExampleTimeout() {
	timeout := resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{Name: "bank", After: time.Millisecond}))
	err := timeout.Do(context.Background(), func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	fmt.Println(err)
	fmt.Println(errors.Is(err, resilience.ErrTimeout), errors.Is(err, context.DeadlineExceeded))
	// Output:
	// resilience: timeout "bank" of 1ms exceeded
	// true true
}

func ExampleBulkhead() {
	bulkhead := resilience.Must(resilience.NewBulkhead(resilience.BulkheadConfig{Name: "bank", Concurrency: 1}))
	err := bulkhead.Do(context.Background(), func(ctx context.Context) error {
		return bulkhead.Do(ctx, func(context.Context) error { return nil }) // there is one place
	})
	fmt.Println(err)
	fmt.Println(resilience.IsRejected(err))
	// Output:
	// resilience: "bank" bulkhead is full
	// true
}

func ExampleRateLimiter() {
	limiter := resilience.Must(resilience.NewRateLimiter(resilience.RateLimiterConfig{Calls: 1, Per: time.Minute, Burst: 2}))
	for range 3 {
		err := limiter.Do(context.Background(), func(context.Context) error { return nil })
		after, limited := resilience.RetryAfter(err)
		fmt.Println(limited, after.Round(time.Minute))
	}
	// Output:
	// false 0s
	// false 0s
	// true 1m0s
}

func ExampleAdaptiveLimiter() {
	limiter := resilience.Must(resilience.NewAdaptiveLimiter(resilience.AdaptiveLimiterConfig{Max: 50}))
	_ = limiter.Do(context.Background(), func(context.Context) error {
		stats := limiter.Stats()
		fmt.Println(stats.Running, "of", stats.Limit)
		return nil
	})
	// Output: 1 of 20
}

// The first replica hangs; the second answers.
func ExampleHedge() {
	hedge := resilience.Must(resilience.NewHedge(resilience.HedgeConfig{After: time.Millisecond}))
	replicas := make(chan string, 2)
	replicas <- "first"
	replicas <- "second"
	answer, err := resilience.Get(context.Background(), hedge, func(ctx context.Context) (string, error) {
		replica := <-replicas
		if replica == "first" {
			<-ctx.Done()
			return "", context.Cause(ctx)
		}
		return "from the " + replica, nil
	})
	fmt.Println(answer, err)
	// Output: from the second <nil>
}

func ExampleFallback() {
	fallback := resilience.Must(resilience.NewFallback(resilience.FallbackConfig{
		Do: func(_ context.Context, err error) error {
			fmt.Println("written down for later:", err)
			return nil
		},
	}))
	fmt.Println(fallback.Do(context.Background(), func(context.Context) error { return errBankDown }))
	// Output:
	// written down for later: the bank is unavailable
	// <nil>
}

func ExampleGetOr() {
	retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Backoff{Base: time.Millisecond}}))
	rate, err := resilience.GetOr(context.Background(), retry,
		func(context.Context) (float64, error) { return 0, errBankDown },
		func(context.Context, error) (float64, error) { return 1.08, nil }) // yesterday's
	fmt.Println(rate, err)
	// Output: 1.08 <nil>
}

func ExampleCheck() {
	retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{Backoff: resilience.Backoff{Base: time.Millisecond}}))
	version := 0
	fetch := func(context.Context) (int, error) { version++; return version, nil }
	fresh := func(version int) error {
		if version < 3 {
			return errors.New("stale")
		}
		return nil
	}
	fmt.Println(resilience.Get(context.Background(), retry, resilience.Check(fetch, fresh)))
	// Output: 3 <nil>
}

func ExampleClassify() {
	for _, err := range []error{
		errBankDown,
		resilience.AsThrottled(errBankDown, time.Minute),
		resilience.AsPermanent(errors.New("no such account")),
		context.Canceled,
		context.DeadlineExceeded,
	} {
		fmt.Println(resilience.Classify(err))
	}
	// Output:
	// transient
	// throttled
	// permanent
	// cancelled
	// transient
}

// A server hands on what its client told it, and its own retries stay away.
func ExamplePreviousAttempts() {
	retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{}))
	ctx := resilience.WithPreviousAttempts(context.Background(), 1)
	err := retry.Do(ctx, func(ctx context.Context) error {
		fmt.Println("tried before:", resilience.PreviousAttempts(ctx))
		return errBankDown
	})
	fmt.Println(err)
	// Output:
	// tried before: 1
	// resilience: retry: gave up after 1 attempt (the call is itself a retry): the bank is unavailable
}
