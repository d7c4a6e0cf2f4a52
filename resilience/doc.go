// Package resilience keeps a service useful while what it depends on is not:
// retries, circuit breakers, timeouts, bulkheads, limiters, hedges and fallbacks,
// all of one shape, and pipelines of them.
//
//	breaker := resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Name: "payments"}))
//	retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{Attempts: 3}))
//	attempt := resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: time.Second}))
//	payments := resilience.Must(resilience.NewPipeline("payments", retry, breaker, attempt))
//
//	receipt, err := resilience.Get(ctx, payments, func(ctx context.Context) (Receipt, error) {
//		return client.Charge(ctx, order)
//	})
//
// # Composition
//
// A pipeline calls its policies outermost first:
//
//	NewPipeline(name, a, b, c).Do(ctx, fn) = a(b(c(fn)))
//
// The usual order is
//
//	Fallback > Timeout (all attempts) > Retry > CircuitBreaker > RateLimiter > Bulkhead > Hedge > Timeout (one attempt)
//
// since each then sees what it should: the fallback whatever is left in the end,
// the retry each refusal, the breaker each attempt and no waiting for a place.
// Pipeline.Describe and String show what was composed.
//
// # What an error means
//
// Classify sorts errors into Transient, Throttled, Permanent and Cancelled, by
// methods that errors have. Retry, CircuitBreaker, Hedge and AdaptiveLimiter go
// by it, and so do the handlers of package eventbus and the relay of package
// outbox: an error that is marked once means the same everywhere. Each policy has
// a field If to say otherwise.
//
// Calls that a policy turned away have errors for which IsRejected is true: the
// function was not called. They say when it is worth trying again (RetryAfter).
//
// A failure may pass, and the call still not be one to make twice: a Retry leaves
// an error alone that has a method Repeatable() bool which returns false.
//
// # What holds
//
//   - A policy never abandons a call: when Do returns, the function is not running.
//     Time limits end contexts, which functions must watch.
//   - A context that ends is noticed in every wait, and its cause is in the chain
//     of the error.
//   - Values and errors are those of the function; policies wrap them, with
//     errors.Is and errors.As seeing through.
//   - Every retry is bounded: by attempts, by a budget that is a share of the
//     traffic, by the deadline of the context; and a call that is itself a retry of
//     somebody further up is not retried beneath (PreviousAttempts).
//   - A call that goes well takes no lock (Hedge: its race) and allocates nothing
//     (Timeout: its context; Get: its value; Hedge: its race; a NamedPolicy or a
//     policy from elsewhere within a pipeline: the rest of the call). It reads the
//     clock once at most, and once more for each policy that looks at when calls end.
//   - Callbacks are called with no lock held; they may use the policy.
//
// Policies are safe for concurrent use. They use package time and context
// directly, so testing/synctest gives them virtual time.
//
// # Where they go
//
// Subpackages wrap what calls and is called: httpresilience clients and servers
// of net/http, grpcresilience those of gRPC, watermillresilience Watermill's
// publishers and handlers, sqlresilience transactions of database/sql. Handlers
// of package eventbus take a policy by eventbus.Through; an open breaker then
// pauses their intake. Package chaos makes failures on purpose, and
// otelresilience tells OpenTelemetry about all of it. Config is the same as data,
// for files, and can be reloaded.
package resilience
