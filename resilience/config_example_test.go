package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/millrace-go/millrace/resilience"
)

func ExampleParseConfig() {
	cfg, err := resilience.ParseConfig([]byte(`{"policies": {"payments": [{"retry": {"atempts": 3}}, {"timeout": {"after": 5}}]}}`))
	fmt.Println(cfg.Policies, err)
	// Output:
	// map[] resilience: config: 2 problems:
	// 	policies.payments[0].retry.atempts: is unknown; known are attempts, max_elapsed, backoff, max_retry_after, budget, nested
	// 	policies.payments[1].timeout.after: must be a duration such as "250ms" or "1m30s", got 5
}

func ExampleConfig_Validate() {
	cfg := resilience.Config{Policies: map[string][]resilience.PolicySettings{
		"payments": {
			{Retry: &resilience.RetrySettings{Attempts: -1, Budget: "payments"}},
			{Timeout: &resilience.TimeoutSettings{After: resilience.Duration(time.Second)}},
		},
	}}
	fmt.Println(cfg.Validate())
	// Output:
	// resilience: config: 2 problems:
	// 	policies.payments[0].retry.budget: there is no budget "payments"; known are unlimited
	// 	policies.payments[0].retry.attempts: must be at least 1, got -1
}

// In YAML, with gopkg.in/yaml.v3.
func ExampleConfig() {
	decoder := yaml.NewDecoder(strings.NewReader(`
policies:
  payments:
    - timeout: {after: 5s}
    - retry: {attempts: 3, backoff: {base: 50ms}}
    - circuit_breaker: {window_period: 10s, failure_rate: 0.5}
`))
	decoder.KnownFields(true)
	var cfg resilience.Config
	if err := decoder.Decode(&cfg); err != nil {
		panic(err)
	}
	registry := resilience.Must(resilience.NewRegistry(cfg, resilience.RegistryConfig{}))
	for _, d := range registry.Describe()["payments"] {
		fmt.Println(d.Kind, d.Name)
	}
	// Output:
	// timeout payments.timeout
	// retry payments.retry
	// circuit breaker payments.circuit_breaker
}

func ExampleRegistry() {
	cfg, err := resilience.ParseConfig([]byte(`{
		"policies": {
			"payments": [
				{"timeout": {"after": "5s"}},
				{"retry": {"attempts": 3}},
				{"circuit_breaker": {"failures": 5}}
			]
		}
	}`))
	if err != nil {
		panic(err)
	}
	registry, err := resilience.NewRegistry(cfg, resilience.RegistryConfig{})
	if err != nil {
		panic(err)
	}
	payments, err := registry.Policy("payments")
	if err != nil {
		panic(err)
	}
	receipt, err := resilience.Get(context.Background(), payments, func(context.Context) (string, error) {
		return "paid", nil
	})
	fmt.Println(receipt, err)
	// Output: paid <nil>
}

func ExampleRegistry_Reload() {
	read := func(config string) resilience.Config {
		return resilience.Must(resilience.ParseConfig([]byte(config)))
	}
	registry := resilience.Must(resilience.NewRegistry(
		read(`{"policies": {"payments": [{"circuit_breaker": {"failures": 1, "open_for": "1m"}}]}}`),
		resilience.RegistryConfig{},
	))
	payments := resilience.Must(registry.Policy("payments"))
	_ = payments.Do(context.Background(), func(context.Context) error { return errors.New("down") })

	err := registry.Reload(read(`{"policies": {"payments": [{"circuit_breaker": {"failures": 5}}, {"timeout": {"after": "1s"}}]}}`))
	fmt.Println(err)
	fmt.Print(registry)
	breaker := resilience.Must(registry.CircuitBreaker("payments.circuit_breaker"))
	fmt.Println(breaker.State())
	// Output:
	// <nil>
	// payments: circuit breaker payments.circuit_breaker(5 failures in a row, open for 10s, 1 probes) > timeout payments.timeout(1s)
	// open
}

func ExampleMeasure() {
	retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{}))
	p := resilience.Measure(retry, func(_ context.Context, took time.Duration, err error) {
		fmt.Println("in time:", took < time.Second, resilience.Classify(err))
	})
	_ = p.Do(context.Background(), func(context.Context) error {
		return resilience.AsPermanent(errors.New("no such order"))
	})
	// Output: in time: true permanent
}
