package resilience

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errStopped = errors.New("the service stops")

// watching runs until its context ends.
func watching(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("stopped: %w", context.Cause(ctx))
}

// busy is a bulkhead whose only place is taken, for as long as t runs.
func busy(t *testing.T) Policy {
	b := Must(NewBulkhead(BulkheadConfig{Name: "db", Concurrency: 1, Queue: 1, MaxWait: time.Hour}))
	u := begin(context.Background(), b)
	t.Cleanup(func() { require.NoError(t, u.end(nil)) })
	return b
}

// spent is a limiter that has let its call through.
func spent(t *testing.T) Policy {
	l := Must(NewRateLimiter(RateLimiterConfig{Name: "api", Calls: 1, Per: time.Hour, MaxWait: time.Hour}))
	require.NoError(t, l.Do(t.Context(), returning(nil)))
	return l
}

// everything is a pipeline of all policies.
func everything(*testing.T) Policy {
	return Must(NewPipeline("all",
		Must(NewFallback(FallbackConfig{Do: func(_ context.Context, err error) error { return err }})),
		Must(NewTimeout(TimeoutConfig{After: time.Hour})),
		Must(NewRetry(RetryConfig{Backoff: Backoff{Base: time.Minute}})),
		Must(NewCircuitBreaker(CircuitBreakerConfig{WindowPeriod: time.Second})),
		Must(NewRateLimiter(RateLimiterConfig{Calls: 1000})),
		Must(NewBulkhead(BulkheadConfig{})),
		Must(NewAdaptiveLimiter(AdaptiveLimiterConfig{})),
		Must(NewHedge(HedgeConfig{After: 100 * time.Millisecond})),
		Must(NewTimeout(TimeoutConfig{After: time.Minute})),
	))
}

// A context may end anywhere: Do returns then, and says why.
func TestContextThatEnds(t *testing.T) {
	const soon = time.Second
	for name, test := range map[string]struct {
		policy func(t *testing.T) Policy
		fn     func(context.Context) error
		after  time.Duration
		runs   bool
	}{
		"before a call":                 {policy: everything, fn: watching, runs: true},
		"before the bulkhead":           {policy: busy, fn: watching},
		"before the limiter":            {policy: spent, fn: watching},
		"in the function":               {policy: everything, fn: watching, after: soon / 100, runs: true},
		"in a hedged attempt":           {policy: everything, fn: watching, after: soon, runs: true},
		"in the pause of a retry":       {policy: everything, fn: returning(errDown), after: soon, runs: true},
		"in the queue of a bulkhead":    {policy: busy, fn: watching, after: soon},
		"while waiting for the limiter": {policy: spent, fn: watching, after: soon},
		"in the queue, in a pipeline": {policy: func(t *testing.T) Policy {
			return Must(NewPipeline("", everything(t), busy(t)))
		}, fn: watching, after: soon},
		"at the limiter, in a pipeline": {policy: func(t *testing.T) Policy {
			return Must(NewPipeline("", everything(t), spent(t)))
		}, fn: watching, after: soon},
	} {
		for how, end := range map[string]func(time.Duration) (context.Context, context.CancelFunc, []error){
			"cancelled": func(after time.Duration) (context.Context, context.CancelFunc, []error) {
				ctx, cancel := context.WithCancelCause(context.Background())
				if after == 0 {
					cancel(errStopped)
				}
				time.AfterFunc(after, func() { cancel(errStopped) })
				return ctx, func() { cancel(nil) }, []error{errStopped}
			},
			"by its deadline": func(after time.Duration) (context.Context, context.CancelFunc, []error) {
				ctx, cancel := context.WithDeadlineCause(context.Background(), time.Now().Add(after), errStopped)
				return ctx, cancel, []error{errStopped}
			},
		} {
			t.Run(name+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := test.policy(t)
					ctx, cancel, is := end(test.after)
					defer cancel()
					begun, called := time.Now(), atomic.Bool{}
					err := p.Do(ctx, func(ctx context.Context) error {
						called.Store(true)
						return test.fn(ctx)
					})
					ran := called.Load()
					require.Error(t, err)
					require.Equal(t, test.runs, ran)
					if errors.Is(err, ErrRateLimited) || errors.As(err, new(*RetryError)) && how == "by its deadline" && test.after > 0 && time.Since(begun) < test.after {
						// There was no use in waiting for what comes after the deadline.
						require.Less(t, time.Since(begun), test.after)
						return
					}
					require.Equal(t, test.after, time.Since(begun))
					for _, is := range is {
						require.ErrorIs(t, err, is)
					}
					if !test.runs {
						require.True(t, IsRejected(err), "the function was not called")
					}
					if how == "cancelled" && !ran {
						require.Equal(t, Cancelled, Classify(err))
					}
				})
			})
		}
	}
}

// A call that gives up in a queue says nothing about the other side.
func TestBreakerDoesNotCountCallsThatGaveUpWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		breaker := Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1}))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := Must(NewPipeline("", breaker, busy(t))).Do(ctx, watching)
		require.EqualError(t, err, `resilience: waiting for bulkhead "db": context deadline exceeded`)
		require.Equal(t, Closed, breaker.State())
	})
}

// A retry outside counts the end of its context as the reason, whatever its cause.
func TestRetryErrorOfACancelledContextIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errStopped) })
		err := Must(NewRetry(RetryConfig{Backoff: Backoff{Base: time.Minute}})).Do(ctx, returning(errDown))
		require.ErrorIs(t, err, errStopped)
		require.ErrorIs(t, err, errDown)
		require.Equal(t, Cancelled, Classify(err))
		var retry *RetryError
		require.ErrorAs(t, err, &retry)
		require.Equal(t, "the context ended during the pause", retry.Reason)
	})
}

// Whatever does not return leaves no policy in disorder.
func TestFunctionThatPanics(t *testing.T) {
	for name, test := range map[string]struct {
		policy func() Policy
		after  func(t *testing.T, p Policy)
	}{
		"retry":    {func() Policy { return Must(NewRetry(RetryConfig{})) }, nil},
		"timeout":  {func() Policy { return Must(NewTimeout(TimeoutConfig{After: time.Hour})) }, nil},
		"hedge":    {func() Policy { return Must(NewHedge(HedgeConfig{After: time.Hour, Quantile: 0.9})) }, nil},
		"fallback": {func() Policy { return Must(NewFallback(FallbackConfig{Do: ignore})) }, nil},
		"bulkhead": {func() Policy { return Must(NewBulkhead(BulkheadConfig{Concurrency: 1})) }, nil},
		"limiter":  {func() Policy { return Must(NewRateLimiter(RateLimiterConfig{Calls: 100, Burst: 10})) }, nil},
		"adaptive limiter": {func() Policy { return Must(NewAdaptiveLimiter(AdaptiveLimiterConfig{Max: 1})) }, func(t *testing.T, p Policy) {
			require.Zero(t, p.(*AdaptiveLimiter).Stats().Running)
		}},
		"breaker": {func() Policy { return Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 2})) }, func(t *testing.T, p Policy) {
			b := p.(*CircuitBreaker)
			require.Panics(t, func() { _ = b.Do(t.Context(), func(context.Context) error { panic("boom") }) })
			require.Panics(t, func() { _ = b.Do(t.Context(), func(context.Context) error { panic("boom") }) })
			require.Equal(t, Open, b.State())
			time.Sleep(10 * time.Second)
			require.Panics(t, func() { _ = b.Do(t.Context(), func(context.Context) error { panic("boom") }) })
			require.Equal(t, Open, b.State(), "as a probe too")
		}},
		"pipeline": {func() Policy { return everything(nil) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := test.policy()
				for range 2 {
					require.PanicsWithValue(t, "boom", func() {
						_, _ = Get(t.Context(), p, func(context.Context) (int, error) { panic("boom") })
					})
					require.NoError(t, p.Do(t.Context(), returning(nil)))
					time.Sleep(time.Second)
				}
				if test.after != nil {
					test.after(t, p)
				}
			})
		})
	}
}

// A function may also end its goroutine, as t.FailNow does.
func TestFunctionThatExits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := everything(t)
		for range 3 {
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = p.Do(context.Background(), func(context.Context) error {
					runtime.Goexit()
					return nil
				})
			}()
			<-done
			require.NoError(t, p.Do(t.Context(), returning(nil)))
		}
	})
}
