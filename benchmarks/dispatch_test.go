package benchmarks

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/millrace-go/millrace/eventbus/driver/dispatch"
)

// BenchmarkDispatch is the engine alone: a record added, handed to one of 16
// workers and settled, beside a channel that knows no keys and no watermark.
func BenchmarkDispatch(b *testing.B) {
	b.Run("chan", func(b *testing.B) {
		c := make(chan int, 1024)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				for range c {
				}
			})
		}
		b.ReportAllocs()
		for i := range b.N {
			c <- i
		}
		close(c)
		wg.Wait()
	})
	for _, keys := range []int{0, 1, 64, 10_000} {
		for _, batch := range []int{1, 100} {
			b.Run(fmt.Sprintf("keys=%d/batch=%d", keys, batch), func(b *testing.B) { dispatchRecords(b, keys, batch) })
		}
	}
}

func dispatchRecords(b *testing.B, keys, batch int) {
	names := make([]string, max(keys, 1))
	for i := range names {
		if keys > 0 {
			names[i] = fmt.Sprint("key-", i)
		}
	}
	d := dispatch.New[int](dispatch.Config{Limit: 1024})
	lane := d.Lane()
	ctx, cancel := context.WithCancel(context.Background())
	var settled atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		d.WorkBatches(ctx, 16, batch, func(items []*dispatch.Item[int]) {
			if settled.Add(int64(len(items))) == int64(b.N) {
				cancel()
			}
		})
	})
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		check(lane.Add(ctx, names[i%len(names)], int64(i), 1, i))
	}
	wg.Wait()
}
