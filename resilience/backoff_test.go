package resilience

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestBackoffStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Backoff{
			Shape:  rapid.SampledFrom([]BackoffShape{"", Exponential, Fixed, Decorrelated}).Draw(t, "shape"),
			Base:   time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "base")),
			Factor: rapid.Float64Range(1, 100).Draw(t, "factor"),
			Jitter: rapid.Float64Range(-1, 1).Draw(t, "jitter"),
		}
		b.Max = b.Base * time.Duration(rapid.Int64Range(1, 1000).Draw(t, "max"))
		b = b.withDefaults()
		c := checking("backoff", "")
		b.validate(c)
		require.NoError(t, c.err())
		most, last := time.Duration(0), time.Duration(0)
		for attempt := 1; attempt <= 2000; attempt = attempt*3/2 + 1 {
			random := rapid.Float64Range(0, 0.999999).Draw(t, "random")
			pause := b.pause(attempt, last, func() float64 { return random })
			full := b.pause(attempt, last, func() float64 { return 0 })
			lowest := float64(full) * (1 - max(0, b.Jitter))
			if b.Shape == Decorrelated {
				lowest, full = float64(b.Base), min(b.Max, 3*max(last, b.Base))
			} else {
				require.GreaterOrEqual(t, full, most, "pauses don't become shorter")
				most = full
			}
			require.GreaterOrEqual(t, float64(pause), lowest-1)
			require.LessOrEqual(t, pause, full)
			require.LessOrEqual(t, pause, b.Max)
			last = pause
		}
	})
}

func TestBackoffShapes(t *testing.T) {
	pauses := func(b Backoff) []time.Duration {
		var all []time.Duration
		b, last := b.withDefaults(), time.Duration(0)
		for attempt := 1; attempt <= 5; attempt++ {
			last = b.pause(attempt, last, func() float64 { return 0.5 })
			all = append(all, last)
		}
		return all
	}
	ms := time.Millisecond
	require.Equal(t, []time.Duration{75 * ms, 150 * ms, 300 * ms, 600 * ms, 1200 * ms}, pauses(Backoff{}))
	require.Equal(t, []time.Duration{100 * ms, 300 * ms, 500 * ms, 500 * ms, 500 * ms}, pauses(Backoff{Max: 500 * ms, Factor: 3, Jitter: -1}))
	require.Equal(t, []time.Duration{75 * ms, 75 * ms, 75 * ms, 75 * ms, 75 * ms}, pauses(Backoff{Shape: Fixed}))
	require.Equal(t, []time.Duration{200 * ms, 350 * ms, 500 * ms, 500 * ms, 500 * ms}, pauses(Backoff{Shape: Decorrelated, Max: 500 * ms}))
}
