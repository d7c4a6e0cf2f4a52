package resilience

// RegistryStats is what the policies of a Registry are doing and have done, by
// their names.
type RegistryStats struct {
	Budgets          map[string]int // retries left; that of a retry's or hedge's own has its name
	Timeouts         map[string]TimeoutStats
	Retries          map[string]RetryStats
	CircuitBreakers  map[string]CircuitBreakerStats
	Bulkheads        map[string]BulkheadStats
	RateLimiters     map[string]RateLimiterStats
	AdaptiveLimiters map[string]AdaptiveLimiterStats
	Hedges           map[string]HedgeStats
}

// Stats returns what the policies are doing and have done. Counts go on over
// reloads.
func (r *Registry) Stats() RegistryStats {
	g := r.current.Load()
	s := RegistryStats{
		Budgets:          map[string]int{},
		Timeouts:         statsOf[*Timeout](g),
		Retries:          statsOf[*Retry](g),
		CircuitBreakers:  statsOf[*CircuitBreaker](g),
		Bulkheads:        statsOf[*Bulkhead](g),
		RateLimiters:     statsOf[*RateLimiter](g),
		AdaptiveLimiters: statsOf[*AdaptiveLimiter](g),
		Hedges:           statsOf[*Hedge](g),
	}
	for name, b := range g.budgets {
		s.Budgets[name] = b.Left()
	}
	return s
}

func statsOf[P interface{ Stats() S }, S any](g *generation) map[string]S {
	all := map[string]S{}
	for name, m := range g.made {
		if p, ok := m.policy.(P); ok {
			all[name] = p.Stats()
		}
	}
	return all
}
