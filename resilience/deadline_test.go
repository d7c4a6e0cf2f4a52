package resilience

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// inTimeout calls fn in a bubble with the context of a Timeout of a second.
func inTimeout(t *testing.T, parent func(context.Context) (context.Context, context.CancelFunc), fn func(t *testing.T, ctx context.Context) error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := parent(t.Context())
		defer cancel()
		timeout := Must(NewTimeout(TimeoutConfig{Name: "call", After: time.Second}))
		_ = timeout.Do(ctx, func(ctx context.Context) error { return fn(t, ctx) })
	})
}

type key struct{}

func requireTimedOut(t *testing.T, ctx context.Context) {
	t.Helper()
	require.Equal(t, context.DeadlineExceeded, ctx.Err())
	var timeout *TimeoutError
	require.ErrorAs(t, context.Cause(ctx), &timeout)
	require.Equal(t, time.Second, timeout.After)
}

func TestDeadlineContext(t *testing.T) {
	background := context.WithCancel
	for name, test := range map[string]struct {
		parent func(context.Context) (context.Context, context.CancelFunc)
		fn     func(t *testing.T, ctx context.Context) error
	}{
		"has a deadline that stays": {background, func(t *testing.T, ctx context.Context) error {
			first, ok := ctx.Deadline()
			require.True(t, ok)
			require.Equal(t, time.Second, time.Until(first))
			time.Sleep(time.Millisecond)
			second, _ := ctx.Deadline()
			require.Equal(t, first, second)
			return nil
		}},
		"closes Done in time": {background, func(t *testing.T, ctx context.Context) error {
			begun := time.Now()
			<-ctx.Done()
			require.Equal(t, time.Second, time.Since(begun))
			requireTimedOut(t, ctx)
			return nil
		}},
		"ends also if nobody watches": {background, func(t *testing.T, ctx context.Context) error {
			require.NoError(t, ctx.Err())
			require.NoError(t, context.Cause(ctx))
			time.Sleep(time.Second)
			requireTimedOut(t, ctx)
			select {
			case <-ctx.Done():
			default:
				require.Fail(t, "Done is open")
			}
			return nil
		}},
		"has an earlier deadline of its parent": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Millisecond, errDown)
		}, func(t *testing.T, ctx context.Context) error {
			deadline, _ := ctx.Deadline()
			require.Equal(t, time.Millisecond, time.Until(deadline))
			<-ctx.Done()
			require.Equal(t, errDown, context.Cause(ctx))
			return nil
		}},
		"has its own deadline before that of its parent": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		}, func(t *testing.T, ctx context.Context) error {
			deadline, _ := ctx.Deadline()
			require.Equal(t, time.Second, time.Until(deadline))
			<-ctx.Done()
			requireTimedOut(t, ctx)
			return nil
		}},
		"ends with its parent": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(time.Millisecond, func() { cancel(errDown) })
			return ctx, func() { cancel(nil) }
		}, func(t *testing.T, ctx context.Context) error {
			time.Sleep(2 * time.Millisecond)
			require.Equal(t, context.Canceled, ctx.Err())
			require.Equal(t, errDown, context.Cause(ctx))
			<-ctx.Done()
			require.Equal(t, context.Canceled, ctx.Err())
			require.Equal(t, errDown, context.Cause(ctx))
			return nil
		}},
		"has the values of its parent": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithCancel(context.WithValue(ctx, key{}, "value"))
		}, func(t *testing.T, ctx context.Context) error {
			require.Equal(t, "value", ctx.Value(key{}))
			_ = ctx.Done()
			require.Equal(t, "value", ctx.Value(key{}))
			require.Nil(t, ctx.Value("another"))
			return nil
		}},
		"tells its children": {background, func(t *testing.T, ctx context.Context) error {
			cancelled, cancel := context.WithCancel(ctx)
			defer cancel()
			timed, cancelTimed := context.WithTimeout(ctx, time.Minute)
			defer cancelTimed()
			early, cancelEarly := context.WithTimeout(ctx, time.Millisecond)
			defer cancelEarly()
			valued := context.WithValue(ctx, key{}, 1)
			after := make(chan struct{})
			context.AfterFunc(ctx, func() { close(after) })
			<-early.Done()
			require.Equal(t, context.DeadlineExceeded, context.Cause(early))
			require.NoError(t, ctx.Err())
			<-cancelled.Done()
			<-timed.Done()
			<-after
			requireTimedOut(t, cancelled)
			requireTimedOut(t, timed)
			requireTimedOut(t, valued)
			return nil
		}},
		"tells of its end without Done": {background, func(t *testing.T, ctx context.Context) error {
			begun, told := time.Now(), make(chan time.Duration, 2)
			ctx.(*deadlineContext).AfterEnd(func() { told <- time.Since(begun) })
			require.Equal(t, time.Second, <-told)
			requireTimedOut(t, ctx)
			return nil
		}},
		"tells of its parent's end without Done": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeoutCause(ctx, time.Millisecond, errDown)
		}, func(t *testing.T, ctx context.Context) error {
			told := make(chan error, 2)
			stop := ctx.(*deadlineContext).AfterEnd(func() { told <- context.Cause(ctx) })
			require.Equal(t, errDown, <-told)
			require.False(t, stop())
			return nil
		}},
		"tells nobody who has gone": {background, func(t *testing.T, ctx context.Context) error {
			require.True(t, ctx.(*deadlineContext).AfterEnd(func() { require.Fail(t, "stopped") })())
			<-ctx.Done()
			return nil
		}},
		"lets a child go": {background, func(t *testing.T, ctx context.Context) error {
			stop := context.AfterFunc(ctx, func() { require.Fail(t, "stopped") })
			require.True(t, stop())
			<-ctx.Done()
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) { inTimeout(t, test.parent, test.fn) })
	}
}

func TestDeadlineContextEndsWithTheCall(t *testing.T) {
	for name, watch := range map[string]func(context.Context){
		"watched":   func(ctx context.Context) { ctx.Done() },
		"unwatched": func(context.Context) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				timeout := Must(NewTimeout(TimeoutConfig{After: time.Hour}))
				var kept context.Context
				require.NoError(t, timeout.Do(t.Context(), func(ctx context.Context) error {
					watch(ctx)
					kept = ctx
					return nil
				}))
				require.Equal(t, context.Canceled, kept.Err())
				require.Equal(t, context.Canceled, context.Cause(kept))
				<-kept.Done()
				child, cancel := context.WithCancel(kept)
				defer cancel()
				require.Error(t, child.Err())
				// A timer that is left would let an hour pass here.
				begun := time.Now()
				synctest.Wait()
				require.Zero(t, time.Since(begun))
			})
		})
	}
}

// Whoever asks for Done while the call ends gets a channel that is closed.
func TestDeadlineContextDoneRacesWithTheEnd(t *testing.T) {
	timeout := Must(NewTimeout(TimeoutConfig{After: time.Hour}))
	for range 2000 {
		var wg sync.WaitGroup
		_ = timeout.Do(context.Background(), func(ctx context.Context) error {
			for range 2 {
				wg.Go(func() { <-ctx.Done() })
				wg.Go(func() {
					for ctx.Err() == nil {
					}
				})
			}
			return nil
		})
		wg.Wait()
	}
}

func TestDeadlineContextNeedsNoGoroutine(t *testing.T) {
	inTimeout(t, context.WithCancel, func(t *testing.T, ctx context.Context) error {
		child, cancel := context.WithCancel(ctx)
		defer cancel()
		// Package context has found its own and needs nobody to wait for ctx.
		require.NotNil(t, ctx.(*deadlineContext).timed())
		require.NotNil(t, child.Done())
		stack := goroutines()
		require.NotContains(t, stack, "context.(*cancelCtx).propagateCancel")
		return nil
	})
}
