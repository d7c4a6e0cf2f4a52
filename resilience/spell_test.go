package resilience

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASpellIsOverBeforeItsTimeIs(t *testing.T) {
	for _, c := range []struct{ left, long time.Duration }{
		{time.Hour, time.Second},
		{800 * time.Millisecond, 750 * time.Millisecond},
		{5 * time.Millisecond, 4 * time.Millisecond},
		{1900 * time.Microsecond, 0},
		{-time.Second, 0},
	} {
		t.Run(c.left.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s spell
				s.begin(7, int64(c.left))
				if c.long > 0 {
					time.Sleep(c.long - 1)
					require.EqualValues(t, 7, s.get())
					s.begin(8, int64(time.Hour))
					require.EqualValues(t, 7, s.get(), "one at a time")
					time.Sleep(time.Nanosecond)
					synctest.Wait()
				}
				require.Zero(t, s.get())
			})
		})
	}
}

func TestASpellThatIsNotTrueIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s spell
		s.begin(7, int64(time.Second))
		s.correct(7)
		require.EqualValues(t, 7, s.get())
		s.correct(8)
		require.Zero(t, s.get())
		s.begin(8, int64(time.Hour))
		time.Sleep(time.Second - 1)
		require.EqualValues(t, 8, s.get(), "the first one's timer is not its own")
	})
}

// A timer does not fire any more when its bubble has ended.
func TestABreakerThatOutlivesABubble(t *testing.T) {
	closed := Must(NewCircuitBreaker(CircuitBreakerConfig{WindowPeriod: 10 * time.Second}))
	open := Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1}))
	synctest.Test(t, func(t *testing.T) {
		_ = open.Do(t.Context(), returning(errDown))
		for range 2 * crowd {
			require.NoError(t, closed.Do(t.Context(), returning(nil)))
			require.ErrorIs(t, open.Do(t.Context(), returning(nil)), ErrOpen)
		}
		require.NotZero(t, closed.period.Load().window.(*lastPeriod).step.get())
		require.NotZero(t, open.period.Load().early.get())
	})
	for range 20 {
		require.ErrorIs(t, closed.Do(t.Context(), returning(errDown)), errDown)
	}
	require.Equal(t, Open, closed.State())
	for range crowd {
		_ = open.Do(t.Context(), returning(nil))
	}
	require.Equal(t, Closed, open.State())
}
