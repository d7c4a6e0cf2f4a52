// Package chaos makes failures on purpose, to see in tests and in staging that
// the other policies do what they are there for. Its policies belong innermost,
// next to the function, where real failures come from:
//
//	slow := resilience.Must(chaos.NewLatency(200*time.Millisecond, 2*time.Second, chaos.Config{
//		Name: "payments", Environments: []string{"test", "staging"}, Rate: 0.1,
//	}))
//	payments := resilience.Must(resilience.NewPipeline("payments", retry, breaker, attempt, slow))
//
// # Where it is on
//
// A policy does nothing unless the environment in which it runs is one of
// Config.Environments. The environment is what the variable MILLRACE_ENV says.
// Where nobody has set it, that is taken for production; so a policy is on in
// production only if its Environments name production. The zero Config is on
// nowhere.
//
// # The same again
//
// Whether and how a policy disturbs its nth call follows from the seed alone. A
// description of the policy has the seed; with that one in Config.Seed the same
// calls, in the same order, are disturbed again. Policies with the same seed and
// rate disturb the same calls.
package chaos
