package resilience

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGet(t *testing.T) {
	for name, test := range map[string]struct {
		policy func() Policy
		values []int
		errs   []error
		want   int
		err    error
	}{
		"a value":                  {func() Policy { return Must(NewPipeline("")) }, []int{1}, []error{nil}, 1, nil},
		"a value beside an error":  {func() Policy { return Must(NewPipeline("")) }, []int{1}, []error{errDown}, 1, errDown},
		"the last attempt's":       {func() Policy { return Must(NewRetry(RetryConfig{})) }, []int{1, 2}, []error{errDown, nil}, 2, nil},
		"the last attempt's error": {func() Policy { return Must(NewRetry(RetryConfig{})) }, []int{1, 2, 3}, []error{errDown, errDown, errDown}, 3, errDown},
		"none beside a fallback":   {func() Policy { return Must(NewFallback(FallbackConfig{Do: ignore})) }, []int{1}, []error{errDown}, 0, nil},
		"its own without need of a fallback": {func() Policy { return Must(NewFallback(FallbackConfig{Do: ignore})) },
			[]int{1}, []error{nil}, 1, nil},
		"none when turned away": {func() Policy { return Must(NewRateLimiter(RateLimiterConfig{Calls: 1})) }, []int{1}, []error{nil}, 1, nil},
		"through a policy of one's own": {func() Policy { return recording("own", new([]string)) },
			[]int{1}, []error{nil}, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				p := test.policy()
				fn := func(context.Context) (int, error) {
					calls++
					return test.values[calls-1], test.errs[calls-1]
				}
				got, err := Get(t.Context(), p, fn)
				require.Equal(t, test.want, got)
				require.ErrorIs(t, err, test.err)
				if name == "none when turned away" {
					got, err = Get(t.Context(), p, fn)
					require.Zero(t, got)
					require.ErrorIs(t, err, ErrRateLimited)
				}
			})
		})
	}
}

func TestGetOr(t *testing.T) {
	p := Must(NewPipeline(""))
	never := func(context.Context, error) (string, error) { panic("no need") }
	got, err := GetOr(t.Context(), p, func(context.Context) (string, error) { return "a", nil }, never)
	require.NoError(t, err)
	require.Equal(t, "a", got)

	got, err = GetOr(t.Context(), p, func(context.Context) (string, error) { return "a", errDown }, func(_ context.Context, err error) (string, error) {
		return "b", errors.Join(err, errPermanent)
	})
	require.Equal(t, "b", got)
	require.ErrorIs(t, err, errDown)
	require.ErrorIs(t, err, errPermanent)
}

func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		odd := func(n int) error {
			if n%2 == 0 {
				return errDown
			}
			return nil
		}
		n := 1
		next := func(context.Context) (int, error) { n++; return n, nil }
		got, err := Get(t.Context(), Must(NewRetry(RetryConfig{})), Check(next, odd))
		require.NoError(t, err)
		require.Equal(t, 3, got)

		got, err = Check(func(context.Context) (int, error) { return 4, nil }, odd)(t.Context())
		require.Equal(t, 4, got, "its value is not lost")
		require.Equal(t, errDown, err)
		_, err = Check(func(context.Context) (int, error) { return 4, errPermanent }, odd)(t.Context())
		require.Equal(t, errPermanent, err, "an error comes first")
	})
}

func TestFallback(t *testing.T) {
	var seen events
	f := Must(NewFallback(FallbackConfig{Name: "cache", Observer: seen.observe, Do: func(_ context.Context, err error) error {
		if errors.Is(err, errPermanent) {
			return errStopped
		}
		return nil
	}}))
	require.NoError(t, f.Do(t.Context(), returning(nil)))
	require.Empty(t, seen.all)
	require.NoError(t, f.Do(t.Context(), returning(errDown)))
	require.Equal(t, []Event{{Kind: EventFellBack, Policy: "cache", Type: "fallback", Err: errDown}}, seen.all)
	require.Equal(t, context.Canceled, f.Do(t.Context(), returning(context.Canceled)), "nobody waits for it")

	err := f.Do(t.Context(), returning(errPermanent))
	require.ErrorIs(t, err, errStopped)
	require.ErrorIs(t, err, errPermanent)
	require.EqualError(t, err, `resilience: fallback "cache": the service stops; it was asked because of: no such thing`)
	require.Equal(t, FallbackStats{FellBack: 2}, f.Stats())

	picky := Must(NewFallback(FallbackConfig{Do: ignore, If: func(err error) bool { return errors.Is(err, errDown) }}))
	require.NoError(t, picky.Do(t.Context(), returning(errDown)))
	require.Equal(t, errStopped, picky.Do(t.Context(), returning(errStopped)))
}

// The value of a hedged call is the winner's, and no other attempt writes to it.
func TestGetOfAHedgedRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Must(NewPipeline("", Must(NewHedge(HedgeConfig{After: time.Second, Attempts: 3, Budget: Unlimited()})),
			Must(NewRetry(RetryConfig{Backoff: plain})), Must(NewHedge(HedgeConfig{After: time.Second}))))
		for i := range 50 {
			type box struct{ n int }
			got, err := Get(t.Context(), p, func(ctx context.Context) (*box, error) {
				select {
				case <-time.After(time.Duration(i%7) * 500 * time.Millisecond):
					if i%3 == 0 && PreviousAttempts(ctx) == 0 {
						return &box{-1}, errDown
					}
					return &box{i}, nil
				case <-ctx.Done():
					return &box{-2}, ctx.Err()
				}
			})
			require.NoError(t, err)
			require.Equal(t, i, got.n)
		}
	})
}
