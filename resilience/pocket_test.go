package resilience

import (
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPocketsAreForLargeBursts(t *testing.T) {
	for burst, size := range map[int]int64{1: 0, 32: 0, 63: 0, 64: 1, 100: 2, 2048: 63, 1e9: 63} {
		require.Equal(t, size, pocketOf(burst), burst)
	}
}

// All places of a burst are used, and none twice.
func TestPlacesUnderContention(t *testing.T) {
	for _, burst := range []int{1, 63, 64, 100, 1000, 50_000} {
		t.Run(strconv.Itoa(burst), func(t *testing.T) {
			l := Must(NewRateLimiter(RateLimiterConfig{Calls: 1, Per: 24 * time.Hour, Burst: burst}))
			var admitted atomic.Int64
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					for l.Do(t.Context(), returning(nil)) == nil {
						admitted.Add(1)
					}
				})
			}
			wg.Wait()
			require.EqualValues(t, burst, admitted.Load())
		})
	}
}
