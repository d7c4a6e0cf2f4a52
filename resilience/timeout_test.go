package resilience

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTimeout(t *testing.T) {
	late := errors.New("late")
	for name, test := range map[string]struct {
		takes   time.Duration
		err     error
		timeout bool
		also    []error
		class   Class
	}{
		"in time":                  {takes: time.Millisecond},
		"fails in time":            {takes: time.Millisecond, err: late, class: Transient, also: []error{late}},
		"succeeds late":            {takes: time.Minute},
		"fails late":               {takes: time.Minute, err: late, timeout: true, class: Transient, also: []error{late}},
		"fails late for good":      {takes: time.Minute, err: AsPermanent(late), timeout: true, class: Permanent, also: []error{late}},
		"ends with its context":    {takes: -1, timeout: true, class: Transient},
		"takes the end for a stop": {takes: time.Minute, err: context.Canceled, timeout: true, class: Transient},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen events
				timeout := Must(NewTimeout(TimeoutConfig{Name: "call", After: time.Second, Observer: seen.observe}))
				begun := time.Now()
				err := timeout.Do(t.Context(), func(ctx context.Context) error {
					if test.takes < 0 {
						<-ctx.Done()
						return ctx.Err()
					}
					time.Sleep(test.takes)
					return test.err
				})
				require.Equal(t, test.class, Classify(err))
				for _, also := range test.also {
					require.ErrorIs(t, err, also)
				}
				if !test.timeout {
					require.Equal(t, test.err, err)
					require.Empty(t, seen.all)
					return
				}
				var timeoutErr *TimeoutError
				require.ErrorAs(t, err, &timeoutErr)
				require.True(t, timeoutErr.Timeout())
				require.ErrorIs(t, err, ErrTimeout)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NotErrorIs(t, err, context.Canceled)
				require.Contains(t, err.Error(), `resilience: timeout "call" of 1s exceeded`)
				require.Equal(t, []EventKind{EventTimedOut}, seen.kinds())
				require.Equal(t, TimeoutStats{TimedOut: 1}, timeout.Stats())
				if test.takes < 0 {
					require.Equal(t, time.Second, time.Since(begun))
				}
			})
		})
	}
}

func TestTimeoutLeavesTheEndOfItsParentAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outer := Must(NewTimeout(TimeoutConfig{Name: "all", After: time.Second}))
		inner := Must(NewTimeout(TimeoutConfig{Name: "one", After: time.Minute}))
		err := Must(NewPipeline("", outer, inner)).Do(t.Context(), func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		var timeout *TimeoutError
		require.ErrorAs(t, err, &timeout)
		require.Equal(t, "all", timeout.Policy)
		require.Zero(t, inner.Stats().TimedOut)
		require.EqualValues(t, 1, outer.Stats().TimedOut)
	})
}

// Watermill #467: the middleware's timeout ended the context that the retry
// outside of it then tried with again.
func TestTimeoutThatLeavesADeadContextForTheRetryOutsideIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Must(NewPipeline("", Must(NewRetry(RetryConfig{})), Must(NewTimeout(TimeoutConfig{After: time.Second}))))
		attempts := 0
		err := p.Do(t.Context(), func(ctx context.Context) error {
			require.NoError(t, ctx.Err())
			deadline, _ := ctx.Deadline()
			require.Equal(t, time.Second, time.Until(deadline))
			if attempts++; attempts == 3 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		require.NoError(t, err)
		require.Equal(t, 3, attempts)
	})
}
