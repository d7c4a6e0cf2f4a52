package resilience

// Config is pipelines as data, for files. ParseConfig reads it from JSON, and
// any YAML decoder that honours encoding.TextUnmarshaler, such as yaml.v3, from
// YAML; let that one refuse unknown fields, too. NewRegistry makes policies of
// it, and Registry.Reload changes them while they are in use.
//
//	{
//	  "budgets":  {"payments": {"ratio": 0.2, "burst": 100}},
//	  "shared":   {"database": {"bulkhead": {"concurrency": 32}}},
//	  "policies": {
//	    "payments": [
//	      {"timeout": {"after": "5s"}},
//	      {"retry": {"attempts": 3, "budget": "payments"}},
//	      {"circuit_breaker": {"window_period": "10s", "failure_rate": 0.5}},
//	      {"policy": "database"},
//	      {"timeout": {"after": "1s"}}
//	    ]
//	  }
//	}
//
// Fields that are left out have the defaults of the policies' Config structs,
// whose fields they are in lower case. A field that is null is left out.
type Config struct {
	// Budgets are what retries and hedges share by name.
	Budgets map[string]BudgetSettings `json:"budgets,omitempty" yaml:"budgets,omitempty"`
	// Shared are policies that pipelines share, with their state, by referring to
	// them: {"policy": "database"}.
	Shared map[string]PolicySettings `json:"shared,omitempty" yaml:"shared,omitempty"`
	// Policies are the pipelines by name, the outermost policy of each first.
	Policies map[string][]PolicySettings `json:"policies" yaml:"policies"`
}

// PolicySettings is one policy: exactly one of the fields but Name is set.
type PolicySettings struct {
	// Name is the policy's name in errors, events and metrics, and what it keeps
	// its state by when the configuration is reloaded. No two policies have the
	// same. Defaults to the pipeline's name, a dot and the kind, such as
	// payments.timeout, then payments.timeout.2; for a shared policy to its key.
	Name string `json:"name,omitempty" yaml:"name,omitempty"`

	Timeout         *TimeoutSettings         `json:"timeout,omitempty" yaml:"timeout,omitempty"`
	Retry           *RetrySettings           `json:"retry,omitempty" yaml:"retry,omitempty"`
	CircuitBreaker  *CircuitBreakerSettings  `json:"circuit_breaker,omitempty" yaml:"circuit_breaker,omitempty"`
	Bulkhead        *BulkheadSettings        `json:"bulkhead,omitempty" yaml:"bulkhead,omitempty"`
	RateLimiter     *RateLimiterSettings     `json:"rate_limiter,omitempty" yaml:"rate_limiter,omitempty"`
	AdaptiveLimiter *AdaptiveLimiterSettings `json:"adaptive_limiter,omitempty" yaml:"adaptive_limiter,omitempty"`
	Hedge           *HedgeSettings           `json:"hedge,omitempty" yaml:"hedge,omitempty"`
	// Policy is the name of one of Config.Shared or RegistryConfig.Custom.
	Policy string `json:"policy,omitempty" yaml:"policy,omitempty"`
}

// BudgetSettings is a BudgetConfig as data.
type BudgetSettings struct {
	Ratio float64 `json:"ratio,omitempty" yaml:"ratio,omitempty"`
	Burst int     `json:"burst,omitempty" yaml:"burst,omitempty"`
}

// TimeoutSettings is a TimeoutConfig as data.
type TimeoutSettings struct {
	After Duration `json:"after,omitempty" yaml:"after,omitempty"`
}

// RetrySettings is a RetryConfig as data. Budget is the name of one of
// Config.Budgets, or unlimited; by default the retry has one of its own.
type RetrySettings struct {
	Attempts      int             `json:"attempts,omitempty" yaml:"attempts,omitempty"`
	MaxElapsed    Duration        `json:"max_elapsed,omitempty" yaml:"max_elapsed,omitempty"`
	Backoff       BackoffSettings `json:"backoff,omitzero" yaml:"backoff,omitempty"`
	MaxRetryAfter Duration        `json:"max_retry_after,omitempty" yaml:"max_retry_after,omitempty"`
	Budget        string          `json:"budget,omitempty" yaml:"budget,omitempty"`
	Nested        bool            `json:"nested,omitempty" yaml:"nested,omitempty"`
}

// BackoffSettings is a Backoff as data.
type BackoffSettings struct {
	Shape  BackoffShape `json:"shape,omitempty" yaml:"shape,omitempty"`
	Base   Duration     `json:"base,omitempty" yaml:"base,omitempty"`
	Max    Duration     `json:"max,omitempty" yaml:"max,omitempty"`
	Factor float64      `json:"factor,omitempty" yaml:"factor,omitempty"`
	Jitter float64      `json:"jitter,omitempty" yaml:"jitter,omitempty"`
}

// CircuitBreakerSettings is a CircuitBreakerConfig as data.
type CircuitBreakerSettings struct {
	Failures     int      `json:"failures,omitempty" yaml:"failures,omitempty"`
	WindowCalls  int      `json:"window_calls,omitempty" yaml:"window_calls,omitempty"`
	WindowPeriod Duration `json:"window_period,omitempty" yaml:"window_period,omitempty"`
	FailureRate  float64  `json:"failure_rate,omitempty" yaml:"failure_rate,omitempty"`
	SlowCall     Duration `json:"slow_call,omitempty" yaml:"slow_call,omitempty"`
	SlowRate     float64  `json:"slow_rate,omitempty" yaml:"slow_rate,omitempty"`
	MinCalls     int      `json:"min_calls,omitempty" yaml:"min_calls,omitempty"`
	OpenFor      Duration `json:"open_for,omitempty" yaml:"open_for,omitempty"`
	Probes       int      `json:"probes,omitempty" yaml:"probes,omitempty"`
}

// BulkheadSettings is a BulkheadConfig as data.
type BulkheadSettings struct {
	Concurrency int      `json:"concurrency,omitempty" yaml:"concurrency,omitempty"`
	Queue       int      `json:"queue,omitempty" yaml:"queue,omitempty"`
	MaxWait     Duration `json:"max_wait,omitempty" yaml:"max_wait,omitempty"`
}

// RateLimiterSettings is a RateLimiterConfig as data.
type RateLimiterSettings struct {
	Calls   int      `json:"calls,omitempty" yaml:"calls,omitempty"`
	Per     Duration `json:"per,omitempty" yaml:"per,omitempty"`
	Burst   int      `json:"burst,omitempty" yaml:"burst,omitempty"`
	MaxWait Duration `json:"max_wait,omitempty" yaml:"max_wait,omitempty"`
}

// AdaptiveLimiterSettings is an AdaptiveLimiterConfig as data.
type AdaptiveLimiterSettings struct {
	Min       int      `json:"min,omitempty" yaml:"min,omitempty"`
	Max       int      `json:"max,omitempty" yaml:"max,omitempty"`
	Initial   int      `json:"initial,omitempty" yaml:"initial,omitempty"`
	Tolerance float64  `json:"tolerance,omitempty" yaml:"tolerance,omitempty"`
	Window    Duration `json:"window,omitempty" yaml:"window,omitempty"`
}

// HedgeSettings is a HedgeConfig as data. Budget is the name of one of
// Config.Budgets, or unlimited; by default the hedge has one of its own.
type HedgeSettings struct {
	After    Duration `json:"after,omitempty" yaml:"after,omitempty"`
	Quantile float64  `json:"quantile,omitempty" yaml:"quantile,omitempty"`
	Attempts int      `json:"attempts,omitempty" yaml:"attempts,omitempty"`
	Budget   string   `json:"budget,omitempty" yaml:"budget,omitempty"`
}
