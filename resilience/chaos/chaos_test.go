package chaos_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/chaos"
)

var errDown = errors.New("down")

// always is a Config that disturbs every call.
func always() chaos.Config {
	return chaos.Config{Name: "payments", Environments: []string{"test"}, Environment: "test", Rate: 1}
}

func succeed(context.Context) error { return nil }

func TestWhereAPolicyIsOn(t *testing.T) {
	for _, c := range []struct {
		name         string
		variable     string
		environment  string
		environments []string
		on           bool
	}{
		{"the zero config", "", "", nil, false},
		{"nobody has said where", "", "", []string{"test", "staging"}, false},
		{"nobody has said where, and production is named", "", "", []string{"production"}, true},
		{"staging, by the variable", "staging", "", []string{"test", "staging"}, true},
		{"staging, by the config", "production", "staging", []string{"staging"}, true},
		{"production, by the variable", "production", "", []string{"test", "staging"}, false},
		{"production, by the config", "staging", "production", []string{"staging"}, false},
		{"production, named", "production", "", []string{"staging", "production"}, true},
		{"an environment nobody thought of", "prod-eu", "", []string{"staging"}, false},
		{"no environments", "staging", "", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(chaos.EnvironmentVariable, c.variable)
			p, err := chaos.NewFault(errDown, chaos.Config{Environments: c.environments, Environment: c.environment, Rate: 1})
			require.NoError(t, err)
			require.Equal(t, c.on, p.On())
			require.Equal(t, c.on, p.Do(t.Context(), succeed) != nil)
		})
	}
}

func TestNothingHappensByDefault(t *testing.T) {
	cfg := always()
	cfg.Rate = 0
	p := resilience.Must(chaos.NewFault(errDown, cfg))
	for range 1000 {
		require.NoError(t, p.Do(t.Context(), succeed))
	}
}

func TestEnabledDecidesCallByCall(t *testing.T) {
	type tenant struct{}
	cfg := always()
	cfg.Enabled = func(ctx context.Context) bool { return ctx.Value(tenant{}) == "guinea pig" }
	p := resilience.Must(chaos.NewFault(errDown, cfg))
	require.NoError(t, p.Do(t.Context(), succeed))
	require.Error(t, p.Do(context.WithValue(t.Context(), tenant{}, "guinea pig"), succeed))
}

func TestTheSameSeedDisturbsTheSameCalls(t *testing.T) {
	fates := func(seed uint64) (all []bool) {
		cfg := always()
		cfg.Rate, cfg.Seed = 0.3, seed
		p := resilience.Must(chaos.NewFault(errDown, cfg))
		for range 2000 {
			all = append(all, p.Do(t.Context(), succeed) != nil)
		}
		return all
	}
	first := fates(7)
	require.Equal(t, first, fates(7))
	require.NotEqual(t, first, fates(8))
	require.NotEqual(t, fates(0), fates(0))
	disturbed := 0
	for _, f := range first {
		if f {
			disturbed++
		}
	}
	require.InDelta(t, 600, disturbed, 80)
}

func TestTheSeedIsInTheDescription(t *testing.T) {
	cfg := always()
	cfg.Rate, cfg.Seed = 0.25, 42
	p := resilience.Must(chaos.NewFault(errDown, cfg))
	pipeline := resilience.Must(resilience.NewPipeline("p", p))
	require.Equal(t, `chaos payments(error "down" for 25% of calls, seed 42)`, pipeline.String())
	cfg.Environment = "production"
	require.Equal(t, "chaos payments(off in production)", resilience.Must(chaos.NewFault(errDown, cfg)).String())
}

func TestConfigIsChecked(t *testing.T) {
	_, err := chaos.NewFault(nil, chaos.Config{Name: "x", Rate: 1.5, Environments: []string{""}})
	require.EqualError(t, err, `chaos: policy "x": the error must not be nil; Rate must be from 0 to 1, got 1.5; Environments must not contain an empty name`)
	_, err = chaos.NewLatency(2, 1, chaos.Config{})
	require.ErrorContains(t, err, "the latency must be positive")
	_, err = chaos.NewOutcome(nil, chaos.Config{})
	require.ErrorContains(t, err, "must not be nil")
	_, err = chaos.NewPanic(nil, chaos.Config{})
	require.ErrorContains(t, err, "must not be nil")
}

func TestObserverIsTold(t *testing.T) {
	var seen []resilience.Event
	cfg := always()
	cfg.Observer = func(e resilience.Event) { seen = append(seen, e) }
	p := resilience.Must(chaos.NewFault(errDown, cfg))
	err := p.Do(t.Context(), succeed)
	require.Equal(t, []resilience.Event{{Kind: resilience.EventInjected, Policy: "payments", Type: "chaos", Err: err}}, seen)
	require.Equal(t, chaos.Stats{Injected: 1}, p.Stats())
}
