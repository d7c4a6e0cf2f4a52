package resilience

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMeasureTellsTimeAndError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var took time.Duration
		var err error
		record := func(_ context.Context, d time.Duration, e error) { took, err = d, e }
		p := Measure(Must(NewTimeout(TimeoutConfig{After: time.Second})), record)
		require.ErrorIs(t, p.Do(t.Context(), func(ctx context.Context) error { return sleep(ctx, time.Hour) }), ErrTimeout)
		require.Equal(t, time.Second, took)
		require.ErrorIs(t, err, ErrTimeout)

		require.PanicsWithValue(t, "oh", func() { _ = p.Do(t.Context(), func(context.Context) error { panic("oh") }) })
		require.Equal(t, ErrPanicked, err)

		require.NoError(t, p.Do(t.Context(), returning(nil)))
		require.NoError(t, err)
	})
}

func TestMeasureKeepsHedgedValuesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Measure(Must(NewHedge(HedgeConfig{After: time.Second})), func(context.Context, time.Duration, error) {})
		var calls atomic.Int64
		v, err := Get(t.Context(), p, func(ctx context.Context) (int, error) {
			n := int(calls.Add(1))
			if n == 1 {
				<-ctx.Done()
			}
			return n, ctx.Err()
		})
		require.NoError(t, err)
		require.Equal(t, 2, v)
	})
}

func TestMeasureIsDescribedAsWhatItMeasures(t *testing.T) {
	timeout := Must(NewTimeout(TimeoutConfig{Name: "x", After: time.Second}))
	p := Must(NewPipeline("p", Measure(timeout, func(context.Context, time.Duration, error) {})))
	require.Equal(t, "timeout x(1s)", p.String())
}

func TestMeasureAllocatesNothing(t *testing.T) {
	p := Measure(Must(NewPipeline("p", Must(NewRetry(RetryConfig{})))), func(context.Context, time.Duration, error) {})
	ctx, fn := t.Context(), returning(nil)
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = p.Do(ctx, fn) }))
}
