// Package otelresilience tells OpenTelemetry what policies do:
//
//	observer, err := otelresilience.NewObserver(otelresilience.Config{})
//	registry, err := resilience.NewRegistry(cfg, resilience.RegistryConfig{Observer: observer})
//	watch, err := otelresilience.Watch(registry, otelresilience.Config{})
//	defer watch.Unregister()
//	payments, err := otelresilience.Instrument("payments", policy, otelresilience.Config{})
//
// # Metrics
//
// NewObserver counts what policies do off the path of calls that go well:
//
//	millrace.resilience.events            counter, {event}: retries, rejections, changes of state, ...
//
// Instrument measures calls, all attempts and pauses of each together:
//
//	millrace.resilience.call.duration     histogram, s
//
// Watch reads the policies of a Registry when metrics are collected:
//
//	millrace.resilience.circuit_breaker.state    up-down counter, {circuit_breaker}: 1 for the state it is in, 0 for the others
//	millrace.resilience.bulkhead.calls           up-down counter, {call}: running and waiting
//	millrace.resilience.adaptive_limiter.calls   up-down counter, {call}: running
//	millrace.resilience.adaptive_limiter.limit   up-down counter, {call}
//	millrace.resilience.budget.left              up-down counter, {retry}
//	millrace.resilience.hedge.delay              gauge, s
//
// # Attributes
//
//	millrace.resilience.policy.name   the policy's or pipeline's name
//	millrace.resilience.policy.type   circuit breaker, retry, ... (events)
//	millrace.resilience.event.kind    as resilience.EventKind (events)
//	millrace.resilience.state         closed, open, half-open, isolated (breakers, and their changes of state); running, waiting (bulkheads)
//	millrace.resilience.outcome       success, transient, throttled, permanent, cancelled, rejected, panicked (calls)
//	millrace.resilience.budget.name   the budget's name
//
// There are as many series as policies, times the few values of the others;
// nothing of a call's content becomes an attribute.
//
// Changes of state are logged, too, since somebody may want to know when.
package otelresilience
