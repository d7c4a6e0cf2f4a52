package resilience

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// configV1 is what is in testdata/v1. A later version must read it, too.
var configV1 = Config{
	Budgets: map[string]BudgetSettings{"payments": {Ratio: 0.2, Burst: 100}},
	Shared: map[string]PolicySettings{
		"database": {Bulkhead: &BulkheadSettings{Concurrency: 32, Queue: 64, MaxWait: Duration(250 * time.Millisecond)}},
	},
	Policies: map[string][]PolicySettings{
		"mail": {
			{AdaptiveLimiter: &AdaptiveLimiterSettings{Min: 2, Max: 200, Initial: 10, Tolerance: 2, Window: Duration(200 * time.Millisecond)}},
			{Name: "smtp", CircuitBreaker: &CircuitBreakerSettings{Failures: 3}},
			{Policy: "database"},
		},
		"payments": {
			{Timeout: &TimeoutSettings{After: Duration(5 * time.Second)}},
			{Retry: &RetrySettings{
				Attempts:   4,
				MaxElapsed: Duration(4 * time.Second),
				Backoff: BackoffSettings{
					Shape: Exponential, Base: Duration(50 * time.Millisecond), Max: Duration(2 * time.Second), Factor: 3, Jitter: 0.8,
				},
				MaxRetryAfter: Duration(90 * time.Second),
				Budget:        "payments",
				Nested:        true,
			}},
			{CircuitBreaker: &CircuitBreakerSettings{
				WindowPeriod: Duration(10 * time.Second), FailureRate: 0.4, SlowCall: Duration(800 * time.Millisecond), SlowRate: 0.6,
				MinCalls: 30, OpenFor: Duration(15 * time.Second), Probes: 2,
			}},
			{RateLimiter: &RateLimiterSettings{Calls: 100, Per: Duration(time.Second), Burst: 20, MaxWait: Duration(100 * time.Millisecond)}},
			{Policy: "database"},
			{Hedge: &HedgeSettings{After: Duration(300 * time.Millisecond), Quantile: 0.95, Attempts: 3, Budget: "unlimited"}},
			{Timeout: &TimeoutSettings{After: Duration(time.Second)}},
		},
		"search": {
			{Retry: &RetrySettings{}},
			{CircuitBreaker: &CircuitBreakerSettings{WindowCalls: 50}},
		},
	},
}

func TestStoredConfigsAreReadByEveryVersion(t *testing.T) {
	inJSON, err := os.ReadFile("testdata/v1/config.json")
	require.NoError(t, err)
	parsed, err := ParseConfig(inJSON)
	require.NoError(t, err)
	require.Equal(t, configV1, parsed)

	var plain Config
	require.NoError(t, json.Unmarshal(inJSON, &plain), "package json reads it as well")
	require.Equal(t, configV1, plain)

	inYAML, err := os.ReadFile("testdata/v1/config.yaml")
	require.NoError(t, err)
	require.Equal(t, configV1, parseYAML(t, string(inYAML)))

	r, err := NewRegistry(configV1, RegistryConfig{})
	require.NoError(t, err)
	require.Equal(t, []string{"mail", "payments", "search"}, r.Names())
	var kinds []string
	for _, d := range r.Describe()["payments"] {
		kinds = append(kinds, d.Kind)
	}
	require.Equal(t, []string{"timeout", "retry", "circuit breaker", "rate limiter", "bulkhead", "hedge", "timeout"}, kinds)
}

func TestWrittenConfigsAreReadAgain(t *testing.T) {
	inJSON, err := json.Marshal(configV1)
	require.NoError(t, err)
	parsed, err := ParseConfig(inJSON)
	require.NoError(t, err)
	require.Equal(t, configV1, parsed)

	inYAML, err := yaml.Marshal(configV1)
	require.NoError(t, err)
	require.Contains(t, string(inYAML), "max_wait: 250ms")
	require.Equal(t, configV1, parseYAML(t, string(inYAML)))
}

func parseYAML(t *testing.T, s string) Config {
	t.Helper()
	var cfg Config
	d := yaml.NewDecoder(strings.NewReader(s))
	d.KnownFields(true)
	require.NoError(t, d.Decode(&cfg))
	return cfg
}

func TestYAMLDurationsNeedAUnit(t *testing.T) {
	var s TimeoutSettings
	require.ErrorContains(t, yaml.Unmarshal([]byte("after: 5"), &s), `must be a duration such as "250ms" or "1m30s", got "5"`)
}

func TestParseConfigFindsAllThatItCannotRead(t *testing.T) {
	_, err := ParseConfig([]byte(`{
		"budget": {},
		"budgets": {"a": {"ratio": "0.2"}},
		"shared": [],
		"policies": {
			"orders": [
				{"retry": {"atempts": 3, "attempts": 1.5, "nested": 1}},
				{"timeout": {"after": 5}},
				{"timeout": {"after": "5"}},
				{"timeout": {"after": "1s", "after": "2s"}},
				{"Timeout": {"after": "5s"}},
				[],
				{"bulkhead": null, "policy": 7}
			],
			"mail": {"retry": {}},
			"mail": []
		}
	}`))
	var problems *ConfigError
	require.ErrorAs(t, err, &problems)
	require.Equal(t, `resilience: config: 14 problems:
	budget: is unknown; known are budgets, shared, policies
	budgets.a.ratio: must be a number, got "0.2"
	shared: must be an object, got []
	policies.orders[0].retry.atempts: is unknown; known are attempts, max_elapsed, backoff, max_retry_after, budget, nested
	policies.orders[0].retry.attempts: must be a whole number, got 1.5
	policies.orders[0].retry.nested: must be true or false, got 1
	policies.orders[1].timeout.after: must be a duration such as "250ms" or "1m30s", got 5
	policies.orders[2].timeout.after: must be a duration such as "250ms" or "1m30s", got "5"
	policies.orders[3].timeout.after: is there more than once
	policies.orders[4].Timeout: is unknown; known are name, timeout, retry, circuit_breaker, bulkhead, rate_limiter, adaptive_limiter, hedge, policy
	policies.orders[5]: must be an object, got []
	policies.orders[6].policy: must be a string, got 7
	policies.mail: must be a list, got {"retry": {}}
	policies.mail: is there more than once`, err.Error())
}

func TestParseConfigSaysWhereTheSyntaxIsWrong(t *testing.T) {
	for _, c := range []struct{ config, want string }{
		{"{\n\"policies\": {,}}", "resilience: config: line 2: invalid character ','"},
		{"", "resilience: config: line 1: unexpected end of JSON input"},
		{"{}\n{}", "resilience: config: line 2: invalid character '{' after top-level value"},
	} {
		_, err := ParseConfig([]byte(c.config))
		require.ErrorContains(t, err, c.want)
	}
	_, err := ParseConfig([]byte("7"))
	require.EqualError(t, err, "resilience: config: must be an object, got 7")
}

func FuzzParseConfig(f *testing.F) {
	golden, err := os.ReadFile("testdata/v1/config.json")
	require.NoError(f, err)
	f.Add(golden)
	f.Add([]byte(`{"policies":{"":[{"retry":{"backoff":{"base":"1h","max":"1s","jitter":-1}}},{}]}}`))
	f.Add([]byte(`{"policies":{"a":null,"b":[null,{"rate_limiter":{"calls":1e9,"burst":9223372036854775807}}]}}`))
	f.Add([]byte(`{"budgets":{"unlimited":{"burst":-1}},"shared":{"x":{"policy":"x"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := ParseConfig(data)
		if err != nil {
			return
		}
		written, err := json.Marshal(cfg)
		require.NoError(t, err)
		again, err := ParseConfig(written)
		require.NoError(t, err)
		rewritten, err := json.Marshal(again)
		require.NoError(t, err)
		require.Equal(t, string(written), string(rewritten))

		invalid := cfg.Validate()
		r, err := NewRegistry(cfg, RegistryConfig{})
		require.Equal(t, invalid, err)
		if err == nil {
			require.NoError(t, r.Reload(again))
			_, _ = r.String(), r.Stats()
		}
	})
}
