package chaos_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
	"github.com/millrace-go/millrace/resilience/chaos"
)

func TestFaultsAreWhatTheyPretendToBe(t *testing.T) {
	p := resilience.Must(chaos.NewFault(resilience.AsPermanent(errDown), always()))
	err := p.Do(t.Context(), func(context.Context) error {
		t.Error("the function was called")
		return nil
	})
	require.EqualError(t, err, `chaos: injected by "payments": down`)
	require.ErrorIs(t, err, errDown)
	require.ErrorIs(t, err, chaos.ErrInjected)
	require.Equal(t, resilience.Permanent, resilience.Classify(err))

	p = resilience.Must(chaos.NewFault(resilience.AsThrottled(errDown, time.Minute), always()))
	after, ok := resilience.RetryAfter(p.Do(t.Context(), succeed))
	require.True(t, ok)
	require.Equal(t, time.Minute, after)
}

func TestLatencyIsWithinItsRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := resilience.Must(chaos.NewLatency(time.Second, 3*time.Second, always()))
		var least, most time.Duration = time.Hour, 0
		for range 1000 {
			begun := time.Now()
			require.NoError(t, p.Do(t.Context(), succeed))
			least, most = min(least, time.Since(begun)), max(most, time.Since(begun))
		}
		require.InDelta(t, time.Second, least, float64(50*time.Millisecond))
		require.GreaterOrEqual(t, least, time.Second)
		require.InDelta(t, 3*time.Second, most, float64(50*time.Millisecond))
		require.LessOrEqual(t, most, 3*time.Second)
	})
}

func TestLatencyEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := resilience.Must(chaos.NewLatency(time.Hour, time.Hour, always()))
		require.Contains(t, p.String(), "latency of 1h0m0s for 100% of calls")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errDown)
		defer cancel()
		begun := time.Now()
		require.ErrorIs(t, p.Do(ctx, func(context.Context) error {
			t.Error("the function was called")
			return nil
		}), errDown)
		require.Equal(t, time.Second, time.Since(begun))
	})
}

func TestOutcomesAreReplaced(t *testing.T) {
	lost := resilience.Must(chaos.NewOutcome(func(_ context.Context, err error) error {
		require.NoError(t, err)
		return errDown
	}, always()))
	called := false
	require.Equal(t, errDown, lost.Do(t.Context(), func(context.Context) error {
		called = true
		return nil
	}))
	require.True(t, called)

	lie := resilience.Must(chaos.NewOutcome(func(context.Context, error) error { return nil }, always()))
	require.NoError(t, lie.Do(t.Context(), func(context.Context) error { return errDown }))
}

func TestPanics(t *testing.T) {
	p := resilience.Must(chaos.NewPanic("oh", always()))
	require.PanicsWithValue(t, "oh", func() { _ = p.Do(t.Context(), succeed) })
	require.Equal(t, chaos.Stats{Injected: 1}, p.Stats())
}

// A cancelled call is no failure, whatever the cause.
func TestLatencyIsCancelledWithACause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := resilience.Must(chaos.NewLatency(time.Hour, time.Hour, always()))
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errDown) })
		err := p.Do(ctx, succeed)
		require.ErrorIs(t, err, errDown)
		require.Equal(t, resilience.Cancelled, resilience.Classify(err))
	})
}
