// Package otelsaga tells OpenTelemetry how sagas are doing:
//
//	observer, err := otelsaga.NewObserver(otelsaga.Config{})
//	orchestrator, err := saga.NewOrchestrator(store, saga.Config{Observer: observer}, Fulfilment)
//	watch, err := otelsaga.Watch(orchestrator, otelsaga.Config{}, "fulfilment")
//	defer watch.Unregister()
//
// # Metrics
//
// NewObserver measures transitions as they are stored:
//
//	millrace.saga.transitions          counter, {transition}
//	millrace.saga.transition.wait      histogram, s: time since the transition before, which is how long a step took
//	millrace.saga.duration             histogram, s: from the start to the end of an instance
//
// Watch asks the store when metrics are collected:
//
//	millrace.saga.instances            up-down counter, {instance}: how many there are by status
//	millrace.saga.stuck.age            gauge, s: time since the last transition of the instance that is stuck for longest
//
// # Attributes
//
//	millrace.saga.name     the definition's name
//	millrace.saga.event    what happened: a topic, call, signal or timeout by its name (transitions)
//	millrace.saga.status   running, compensating, completed, compensated, stuck
//
// There are as many series as sagas, times the events of their definitions;
// nothing of an instance becomes an attribute. Traces go by the traceparent that
// events pass on.
package otelsaga
