package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/chaos"
)

func Example() {
	cfg := chaos.Config{
		Name:         "payments",
		Environments: []string{"test", "staging"},
		Environment:  "test", // usually from MILLRACE_ENV
		Rate:         0.5,
		Seed:         1,
	}
	fault := resilience.Must(chaos.NewFault(errors.New("connection reset"), cfg))
	retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{Attempts: 10, Backoff: resilience.Backoff{Base: time.Millisecond}}))
	p := resilience.Must(resilience.NewPipeline("payments", retry, fault))

	for range 5 {
		if err := p.Do(context.Background(), func(context.Context) error { return nil }); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(fault, "disturbed calls:", fault.Stats().Injected > 0)
	// Output:
	// chaos payments(error "connection reset" for 50% of calls, seed 1) disturbed calls: true
}

func ExampleNewLatency() {
	slow := resilience.Must(chaos.NewLatency(time.Hour, time.Hour, chaos.Config{
		Environments: []string{"test"}, Environment: "test", Rate: 1,
	}))
	timeout := resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: 10 * time.Millisecond}))
	p := resilience.Must(resilience.NewPipeline("search", timeout, slow))
	err := p.Do(context.Background(), func(context.Context) error { return nil })
	fmt.Println(errors.Is(err, resilience.ErrTimeout))
	// Output: true
}

func ExampleNewOutcome() {
	lost := resilience.Must(chaos.NewOutcome(func(context.Context, error) error {
		return errors.New("the answer was lost")
	}, chaos.Config{Environments: []string{"test"}, Environment: "test", Rate: 1}))
	charged := 0
	err := lost.Do(context.Background(), func(context.Context) error {
		charged++
		return nil
	})
	fmt.Println(charged, err)
	// Output: 1 the answer was lost
}

func ExampleNewPanic() {
	p := resilience.Must(chaos.NewPanic("out of cheese", chaos.Config{Environments: []string{"staging"}, Environment: "production", Rate: 1}))
	fmt.Println(p.Do(context.Background(), func(context.Context) error { return nil }), p)
	// Output: <nil> chaos(off in production)
}

// A registry takes the policy as one of one's own.
func ExamplePolicy() {
	cfg := resilience.Must(resilience.ParseConfig([]byte(`{
		"policies": {"payments": [{"retry": {"attempts": 2, "backoff": {"base": "1ms"}}}, {"policy": "chaos"}]}
	}`)))
	fault := resilience.Must(chaos.NewFault(errors.New("connection reset"), chaos.Config{
		Environments: []string{"staging"}, Environment: "staging", Rate: 1,
	}))
	registry := resilience.Must(resilience.NewRegistry(cfg, resilience.RegistryConfig{
		Custom: map[string]resilience.Policy{"chaos": fault},
	}))
	err := resilience.Must(registry.Policy("payments")).Do(context.Background(), func(context.Context) error { return nil })
	fmt.Println(err)
	// Output: resilience: retry "payments.retry": gave up after 2 attempts (that is all): chaos: injected: connection reset
}
