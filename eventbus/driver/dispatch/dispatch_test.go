package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

func TestKeysRunSideBySideAndEachInOrder(t *testing.T) {
	d := dispatch.New[int](dispatch.Config{})
	lane := d.Lane()
	const keys, each = 7, 300
	for i := range keys * each {
		require.NoError(t, lane.Add(t.Context(), "k"+strconv.Itoa(i%keys), int64(i), 1, i/keys))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var seen [keys][]int
	var busy [keys]atomic.Int32
	var left atomic.Int32
	left.Store(keys * each)
	d.Work(ctx, 8, func(it *dispatch.Item[int]) {
		k, _ := strconv.Atoi(it.Key[1:])
		require.EqualValues(t, 1, busy[k].Add(1), "two records of one key at a time")
		if it.Record%50 == 0 && it.Attempt == 1 {
			it.Retry(0)
		} else {
			seen[k] = append(seen[k], it.Record)
			if left.Add(-1) == 0 {
				cancel()
			}
		}
		busy[k].Add(-1)
	})
	for _, s := range seen {
		require.Len(t, s, each)
		require.IsIncreasing(t, s)
	}
	mark, ok := lane.Watermark()
	require.True(t, ok)
	require.EqualValues(t, keys*each-1, mark)
	require.Zero(t, d.Len())
}

func TestSlowKeyHoldsUpNoOtherAndHoldsTheWatermark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispatch.New[string](dispatch.Config{})
		lane := d.Lane()
		for i, key := range []string{"slow", "fast", "fast", "slow"} {
			require.NoError(t, lane.Add(t.Context(), key, int64(i+1), 1, key))
		}
		release := make(chan struct{})
		var fast atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			d.Work(ctx, 2, func(it *dispatch.Item[string]) {
				if it.Record == "slow" {
					<-release
				} else {
					fast.Add(1)
				}
			})
		})
		synctest.Wait()
		require.EqualValues(t, 2, fast.Load())
		_, ok := lane.Watermark()
		require.False(t, ok, "the slow record is the first")
		close(release)
		synctest.Wait()
		mark, _ := lane.Watermark()
		require.EqualValues(t, 4, mark)
		cancel()
		wg.Wait()
	})
}

func TestAddBlocksAtTheLimitUntilRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispatch.New[int](dispatch.Config{Limit: 2})
		lane := d.Lane()
		require.NoError(t, lane.Add(t.Context(), "", 1, 1, 1))
		require.NoError(t, lane.Add(t.Context(), "", 2, 1, 2))
		added := make(chan error, 1)
		go func() { added <- lane.Add(t.Context(), "", 3, 1, 3) }()
		synctest.Wait()
		require.Empty(t, added)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { d.Work(ctx, 1, func(*dispatch.Item[int]) {}) })
		require.NoError(t, <-added)
		cancel()
		wg.Wait()
	})
}

func TestRevokeWaitsForRunningAndFencesStragglers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispatch.New[int](dispatch.Config{})
		lane := d.Lane()
		require.NoError(t, lane.Add(t.Context(), "a", 1, 1, 1))
		require.NoError(t, lane.Add(t.Context(), "a", 2, 1, 2))
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			d.Work(ctx, 1, func(it *dispatch.Item[int]) { <-release })
		})
		synctest.Wait()
		hurry, stop := context.WithTimeoutCause(t.Context(), time.Second, errors.New("moved on"))
		defer stop()
		require.EqualError(t, lane.Revoke(hurry), "moved on")
		close(release)
		synctest.Wait()
		_, ok := lane.Watermark()
		require.False(t, ok, "a straggler must not move the watermark of a lane that belongs to somebody else")
		require.Zero(t, d.Len())
		require.ErrorIs(t, lane.Add(t.Context(), "a", 3, 1, 3), dispatch.ErrRevoked)
		cancel()
		wg.Wait()
	})
}

// A record that is held for long must not keep everything that came after it.
func TestMemoryBehindAHeldRecordIsBounded(t *testing.T) {
	d := dispatch.New[[]byte](dispatch.Config{})
	lane := d.Lane()
	const many, size = 20_000, 10_000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	release := make(chan struct{})
	var handled atomic.Int32
	added := make(chan struct{}, 100) // bounds what is not done
	var wg sync.WaitGroup
	wg.Go(func() {
		d.Work(ctx, 2, func(it *dispatch.Item[[]byte]) {
			if it.Key == "held" {
				<-release
				return
			}
			<-added
			handled.Add(1)
		})
	})
	require.NoError(t, lane.Add(ctx, "held", 0, 1, nil))
	for i := range many {
		added <- struct{}{}
		require.NoError(t, lane.Add(ctx, strconv.Itoa(i%10), int64(i+1), 1, make([]byte, size)))
	}
	require.Eventually(t, func() bool { return handled.Load() == many }, 30*time.Second, time.Millisecond)
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	require.Less(t, m.HeapAlloc, uint64(many*size/4))
	close(release)
	require.Eventually(t, func() bool { mark, _ := lane.Watermark(); return mark == many }, 30*time.Second, time.Millisecond)
	cancel()
	wg.Wait()
}

// t.FailNow in a handler ends its goroutine; the worker must come back.
func TestHandlerThatEndsItsGoroutineCostsNoWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispatch.New[int](dispatch.Config{})
		lane := d.Lane()
		for i := range 3 {
			require.NoError(t, lane.Add(t.Context(), "k", int64(i), 1, i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		var calls []int
		d.Work(ctx, 1, func(it *dispatch.Item[int]) {
			calls = append(calls, it.Record)
			if len(calls) == 1 {
				runtime.Goexit()
			}
			if it.Record == 2 {
				cancel()
			}
		})
		require.Equal(t, []int{0, 0, 1, 2}, calls)
	})
}

// So must the records of its batch, whatever it has made of that.
func TestBatchOfAHandlerThatEndsItsGoroutineIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispatch.New[int](dispatch.Config{})
		lane := d.Lane()
		for i := range 3 {
			require.NoError(t, lane.Add(t.Context(), "", int64(i), 1, i))
		}
		ctx, cancel := context.WithCancel(t.Context())
		calls, handled := 0, map[int]bool{}
		d.WorkBatches(ctx, 1, 3, func(items []*dispatch.Item[int]) {
			if calls++; calls == 1 {
				clear(items)
				runtime.Goexit()
			}
			for _, item := range items {
				handled[item.Record] = true
			}
			if len(handled) == 3 {
				cancel()
			}
		})
		require.Equal(t, map[int]bool{0: true, 1: true, 2: true}, handled)
		require.Zero(t, d.Len())
	})
}

func TestAbandonDropsAndFencesWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := dispatch.New[int](dispatch.Config{})
		lane := d.Lane()
		require.NoError(t, lane.Add(t.Context(), "a", 1, 1, 1))
		require.NoError(t, lane.Add(t.Context(), "a", 2, 1, 2))
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { d.Work(ctx, 1, func(*dispatch.Item[int]) { <-release }) })
		synctest.Wait()
		lane.Abandon()
		lane.Abandon()
		close(release)
		synctest.Wait()
		_, ok := lane.Watermark()
		require.False(t, ok)
		require.Zero(t, d.Len())
		require.ErrorIs(t, lane.Add(t.Context(), "a", 3, 1, 3), dispatch.ErrRevoked)
		cancel()
		wg.Wait()
	})
}

func TestBatchesHoldDifferentKeys(t *testing.T) {
	d := dispatch.New[int](dispatch.Config{})
	lane := d.Lane()
	for i := range 100 {
		require.NoError(t, lane.Add(t.Context(), strconv.Itoa(i%10), int64(i), 1, i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	total, batches := 0, 0
	d.WorkBatches(ctx, 1, 64, func(items []*dispatch.Item[int]) {
		batches++
		keys := map[string]bool{}
		for _, it := range items {
			require.False(t, keys[it.Key])
			keys[it.Key] = true
		}
		if total += len(items); total == 100 {
			cancel()
		}
	})
	require.Equal(t, 10, batches)
}

// Workers wake each other, so one that is told of many records must pass it on
// before its handler, however long that takes.
func TestSlowHandlersLeaveNoWorkerIdleBesideReadyRecords(t *testing.T) {
	const workers = 16
	entries := func(n int) (all []dispatch.Entry[int]) {
		for i := range n {
			all = append(all, dispatch.Entry[int]{Key: strconv.Itoa(i), Position: int64(i), Attempt: 1, Record: i})
		}
		return all
	}
	for _, add := range []struct {
		how string
		all func(*dispatch.Lane[int], int)
	}{
		{"one by one", func(l *dispatch.Lane[int], n int) {
			for _, e := range entries(n) {
				require.NoError(t, l.Add(t.Context(), e.Key, e.Position, e.Attempt, e.Record))
			}
		}},
		{"batch", func(l *dispatch.Lane[int], n int) {
			_, err := l.AddBatch(t.Context(), entries(n))
			require.NoError(t, err)
		}},
	} {
		t.Run(add.how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := dispatch.New[int](dispatch.Config{})
				release := make(chan struct{})
				var running atomic.Int32
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() {
					d.Work(ctx, workers, func(it *dispatch.Item[int]) {
						if it.Attempt == 1 && it.Record%2 == 0 {
							it.Retry(time.Second) // comes back by a timer
							return
						}
						running.Add(1)
						<-release
					})
				})
				synctest.Wait()
				require.Equal(t, workers, d.Idle())
				add.all(d.Lane(), workers-1)
				synctest.Wait()
				require.EqualValues(t, (workers-1)/2, running.Load())
				time.Sleep(time.Second) // of the bubble
				synctest.Wait()
				require.EqualValues(t, workers-1, running.Load())
				require.Equal(t, 1, d.Idle())
				close(release)
				cancel()
				wg.Wait()
				require.Zero(t, d.Len())
			})
		})
	}
}

func TestProgressIsReported(t *testing.T) {
	var calls atomic.Int32
	d := dispatch.New[int](dispatch.Config{Progress: func() { calls.Add(1) }})
	lane := d.Lane()
	require.NoError(t, lane.Add(t.Context(), "", 1, 1, 1))
	ctx, cancel := context.WithCancel(t.Context())
	d.Work(ctx, 1, func(*dispatch.Item[int]) { cancel() })
	require.EqualValues(t, 1, calls.Load())
}

func ExampleDispatcher() {
	d := dispatch.New[string](dispatch.Config{Limit: 100})
	lane := d.Lane()
	ctx, stop := context.WithCancel(context.Background())
	for offset, line := range []string{"created", "paid", "shipped"} {
		_ = lane.Add(ctx, "order-1", int64(offset), 1, line)
	}
	d.Work(ctx, 4, func(it *dispatch.Item[string]) {
		fmt.Println(it.Key, it.Record)
		if it.Record == "shipped" {
			stop()
		}
	})
	mark, _ := lane.Watermark()
	fmt.Println("commit", mark)
	// Output:
	// order-1 created
	// order-1 paid
	// order-1 shipped
	// commit 2
}
