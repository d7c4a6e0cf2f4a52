package resilience

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A call may get its turn in the moment in which its context ends or its time is
// up; either way no place is lost.
func TestBulkheadLosesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Must(NewBulkhead(BulkheadConfig{Concurrency: 1, Queue: 1, MaxWait: time.Second}))
		for i := range 2000 {
			first := begin(t.Context(), b)
			second := begin(t.Context(), b)
			second.finish <- nil
			if i%2 == 0 {
				second.cancel()
			} else {
				time.Sleep(time.Second - 1)
				time.AfterFunc(1, func() { first.finish <- nil })
			}
			if i%2 == 0 {
				first.finish <- nil
			}
			require.NoError(t, <-first.result)
			<-second.result
			require.Equal(t, 0, b.Stats().Running+b.Stats().Waiting)
			require.NoError(t, b.Do(t.Context(), returning(nil)))
		}
	})
}

func TestBulkheadEvent(t *testing.T) {
	var seen events
	b := Must(NewBulkhead(BulkheadConfig{Name: "db", Concurrency: 1, Observer: seen.observe}))
	err := b.Do(t.Context(), func(ctx context.Context) error { return b.Do(ctx, returning(nil)) })
	require.EqualError(t, err, `resilience: "db" bulkhead is full`)
	require.Equal(t, []Event{{Kind: EventRejected, Policy: "db", Type: "bulkhead", Err: err}}, seen.all)
}
