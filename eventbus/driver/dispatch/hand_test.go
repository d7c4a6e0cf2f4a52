package dispatch_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// turningSlow adds records of 64 keys in turns, of which quick handlers have their
// workers take many at a time, and one whose handler blocks until release.
func turningSlow(t *testing.T, lane *dispatch.Lane[int], slow int) (handle func(*dispatch.Item[int]), handled *atomic.Int32, release chan struct{}) {
	const keys, each = 64, 3
	var batch []dispatch.Entry[int]
	for i := range keys * each {
		batch = append(batch, dispatch.Entry[int]{Key: strconv.Itoa(i % keys), Position: int64(i), Attempt: 1, Record: i})
	}
	_, err := lane.AddBatch(t.Context(), batch)
	require.NoError(t, err)
	handled, release = new(atomic.Int32), make(chan struct{})
	return func(it *dispatch.Item[int]) {
		if it.Record == slow {
			<-release
		}
		handled.Add(1)
	}, handled, release
}

func TestHandlerThatTurnsSlowHoldsUpOnlyItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispatch.New[int](dispatch.Config{})
		lane := d.Lane()
		handle, handled, release := turningSlow(t, lane, 40)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { d.Work(ctx, 2, handle) })
		synctest.Wait() // no time passes
		require.EqualValues(t, 64*3-3, handled.Load())
		require.Equal(t, 3, d.Len())
		require.Equal(t, 1, d.Idle())
		mark, _ := lane.Watermark()
		require.EqualValues(t, 39, mark)
		close(release)
		synctest.Wait()
		require.Zero(t, d.Len())
		cancel()
		wg.Wait()
	})
}

// What is done beside a handler that turned slow, and what waits for it, become
// known although every worker is busy.
func TestBusyWorkersKeepNothingToThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lane *dispatch.Lane[int]
		var told atomic.Int64
		d := dispatch.New[int](dispatch.Config{Progress: func() {
			mark, _ := lane.Watermark()
			told.Store(mark)
		}})
		lane = d.Lane()
		handle, handled, release := turningSlow(t, lane, 40)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { d.Work(ctx, 1, handle) })
		synctest.Wait()
		require.EqualValues(t, 40, handled.Load())
		time.Sleep(2 * time.Millisecond) // of the bubble
		synctest.Wait()
		require.EqualValues(t, 39, told.Load())
		wg.Go(func() { d.Work(ctx, 1, handle) })
		synctest.Wait()
		require.EqualValues(t, 64*3-3, handled.Load())
		close(release)
		cancel()
		wg.Wait()
	})
}

func TestRevokeDropsWhatABusyWorkerHasNotStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispatch.New[int](dispatch.Config{})
		lane := d.Lane()
		handle, handled, release := turningSlow(t, lane, 40)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { d.Work(ctx, 1, handle) })
		synctest.Wait()
		var revoked atomic.Bool
		wg.Go(func() { require.NoError(t, lane.Revoke(t.Context())); revoked.Store(true) })
		synctest.Wait()
		require.False(t, revoked.Load())
		close(release)
		synctest.Wait()
		require.True(t, revoked.Load())
		require.EqualValues(t, 41, handled.Load())
		require.Zero(t, d.Len())
		mark, _ := lane.Watermark()
		require.EqualValues(t, 40, mark)
		cancel()
		wg.Wait()
	})
}

func TestNothingStartsOnceWorkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispatch.New[int](dispatch.Config{})
		lane := d.Lane()
		handle, handled, _ := turningSlow(t, lane, -1)
		ctx, cancel := context.WithCancel(t.Context())
		d.Work(ctx, 1, func(it *dispatch.Item[int]) {
			if handle(it); it.Record == 40 {
				cancel()
			}
		})
		require.EqualValues(t, 41, handled.Load())
		require.Equal(t, 64*3-41, d.Len())
	})
}

// The delay of a retry counts from the return of its handler, whatever the worker
// does next.
func TestRetryDelayBeginsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispatch.New[int](dispatch.Config{})
		handle, _, release := turningSlow(t, d.Lane(), 40)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			d.Work(ctx, 1, func(it *dispatch.Item[int]) {
				if it.Record == 39 && it.Attempt == 1 {
					it.Retry(time.Hour)
					return
				}
				handle(it)
			})
		})
		synctest.Wait()
		require.Equal(t, 1, d.Delayed())
		close(release)
		cancel()
		wg.Wait()
	})
}
