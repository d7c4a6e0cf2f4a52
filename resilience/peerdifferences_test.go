package resilience

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go"
	fsbreaker "github.com/failsafe-go/failsafe-go/circuitbreaker"
	fslimiter "github.com/failsafe-go/failsafe-go/ratelimiter"
	"github.com/sony/gobreaker/v2"
	"github.com/stretchr/testify/require"
)

// peerDifferences are the places where a peer does something else, on purpose
// of one of the two. Each shows itself.
var peerDifferences = []struct {
	name, why string
	show      func(t *testing.T)
}{
	{"failsafe opens before its count window is full", "its limit is a number of failures; a rate of a few calls says little, hence MinCalls", func(t *testing.T) {
		peer := fsbreaker.NewBuilder[any]().WithFailureThresholdRatio(2, 10).Build()
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{WindowCalls: 10, FailureRate: 0.2}))
		for range 2 {
			peer.RecordFailure()
			_ = b.Do(t.Context(), returning(errDown))
		}
		require.True(t, peer.IsOpen())
		require.Equal(t, Closed, b.State())
	}},
	{"failsafe opens its time window at a success", "it looks at each call; nothing got worse by one that went well", func(t *testing.T) {
		peer := fsbreaker.NewBuilder[any]().WithFailureRateThreshold(0.5, 2, time.Second).Build()
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{WindowPeriod: time.Second, MinCalls: 2}))
		peer.RecordFailure()
		peer.RecordSuccess()
		_ = b.Do(t.Context(), returning(errDown))
		_ = b.Do(t.Context(), returning(nil))
		require.True(t, peer.IsOpen())
		require.Equal(t, Closed, b.State())
	}},
	{"failsafe rounds rates to hundredths", "199 of 400 is half to it", func(t *testing.T) {
		peer := fsbreaker.NewBuilder[any]().WithFailureRateThreshold(0.5, 400, time.Second).Build()
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{WindowPeriod: time.Second, MinCalls: 400}))
		for i := range 400 {
			if i < 201 {
				peer.RecordSuccess()
				_ = b.Do(t.Context(), returning(nil))
			} else {
				peer.RecordFailure()
				_ = b.Do(t.Context(), returning(errDown))
			}
		}
		require.True(t, peer.IsOpen())
		require.Equal(t, Closed, b.State())
	}},
	{"failsafe counts calls of an earlier state", "a call that began before the breaker opened is no probe", func(t *testing.T) {
		peer := fsbreaker.NewBuilder[any]().WithDelay(time.Second).Build()
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1, OpenFor: time.Second, Probes: 2}))
		require.True(t, peer.TryAcquirePermit())
		old := begin(t.Context(), b)
		peer.RecordFailure()
		_ = b.Do(t.Context(), returning(errDown))
		time.Sleep(time.Second)
		require.True(t, peer.TryAcquirePermit())
		require.NoError(t, b.Do(t.Context(), returning(nil)))
		peer.RecordFailure() // of the call that began first
		require.Error(t, old.end(errDown))
		require.True(t, peer.IsOpen())
		require.Equal(t, HalfOpen, b.State())
	}},
	{"failsafe bounds probes at a time", "Probes bounds them in all, so that what recovers is not hit by more than it must be", func(t *testing.T) {
		peer := fsbreaker.NewBuilder[any]().WithDelay(time.Second).WithSuccessThreshold(2).Build()
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1, OpenFor: time.Second, Probes: 2}))
		peer.RecordFailure()
		_ = b.Do(t.Context(), returning(errDown))
		time.Sleep(time.Second)
		require.True(t, peer.TryAcquirePermit())
		require.True(t, peer.TryAcquirePermit())
		first, second := begin(t.Context(), b), begin(t.Context(), b)
		peer.RecordSuccess()
		require.NoError(t, first.end(nil))
		require.True(t, peer.TryAcquirePermit())
		require.ErrorIs(t, b.Do(t.Context(), returning(nil)), ErrOpen)
		require.NoError(t, second.end(nil))
	}},
	{"failsafe counts cancelled calls", "the caller has given up, which says nothing about the other side", func(t *testing.T) {
		peer := fsbreaker.NewBuilder[any]().Build()
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1}))
		require.Error(t, failsafe.With(peer).Run(func() error { return context.Canceled }))
		require.Error(t, b.Do(t.Context(), returning(context.Canceled)))
		require.True(t, peer.IsOpen())
		require.Equal(t, Closed, b.State())
	}},
	{"failsafe spaces smooth calls by a grid", "calls an interval apart are what was asked for", func(t *testing.T) {
		peer := fslimiter.NewSmoothWithMaxRate[any](time.Second)
		l := Must(NewRateLimiter(RateLimiterConfig{Calls: 1}))
		time.Sleep(1900 * time.Millisecond)
		require.True(t, peer.TryAcquirePermit())
		require.NoError(t, l.Do(t.Context(), returning(nil)))
		time.Sleep(100 * time.Millisecond)
		require.True(t, peer.TryAcquirePermit())
		require.ErrorIs(t, l.Do(t.Context(), returning(nil)), ErrRateLimited)
	}},
	{"failsafe lets two bursts through at the edge of a period", "a bucket holds one, whenever it is asked", func(t *testing.T) {
		peer := fslimiter.NewBursty[any](10, time.Second)
		l := Must(NewRateLimiter(RateLimiterConfig{Calls: 10, Burst: 10}))
		peers, ours := 0, 0
		for _, pause := range []time.Duration{999 * time.Millisecond, time.Millisecond} {
			time.Sleep(pause)
			for range 10 {
				if peer.TryAcquirePermit() {
					peers++
				}
				if l.Do(t.Context(), returning(nil)) == nil {
					ours++
				}
			}
		}
		require.Equal(t, 20, peers)
		require.Equal(t, 10, ours)
	}},
	{"failsafe lets any number of calls wait for a bulkhead", "a queue without end is what a bulkhead is there to prevent", func(t *testing.T) {
		peer := failsafeBulkhead(1, time.Second)
		b := Must(NewBulkhead(BulkheadConfig{Concurrency: 1, Queue: 10}))
		var peers, ours []*underWay
		for range 100 {
			peers, ours = append(peers, begin(t.Context(), peer)), append(ours, begin(t.Context(), b))
		}
		require.Empty(t, peers[99].result)
		require.ErrorIs(t, <-ours[99].result, ErrBulkheadFull)
		time.Sleep(2 * time.Second) // those that wait give up
		require.NoError(t, peers[0].end(nil))
		require.NoError(t, ours[0].end(nil))
	}},
	{"gobreaker is still open when its timeout is over", "OpenFor has passed when it has passed", func(t *testing.T) {
		peer := gobreaker.NewCircuitBreaker[any](gobreaker.Settings{Timeout: time.Second, ReadyToTrip: func(gobreaker.Counts) bool { return true }})
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1, OpenFor: time.Second}))
		_, _ = peer.Execute(func() (any, error) { return nil, errDown })
		_ = b.Do(t.Context(), returning(errDown))
		time.Sleep(time.Second)
		_, err := peer.Execute(func() (any, error) { return nil, nil })
		require.ErrorIs(t, err, gobreaker.ErrOpenState)
		require.NoError(t, b.Do(t.Context(), returning(nil)))
	}},
	{"gobreaker becomes half-open by the clock", "a state that changes when it is looked at has no event; the next call changes it", func(t *testing.T) {
		peer := gobreaker.NewCircuitBreaker[any](gobreaker.Settings{Timeout: time.Second, ReadyToTrip: func(gobreaker.Counts) bool { return true }})
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1, OpenFor: time.Second}))
		_, _ = peer.Execute(func() (any, error) { return nil, errDown })
		_ = b.Do(t.Context(), returning(errDown))
		time.Sleep(time.Second + 1)
		require.Equal(t, gobreaker.StateHalfOpen, peer.State())
		require.Equal(t, Open, b.State())
	}},
	{"gobreaker waits for a lost probe for ever", "one call that hangs must not keep all others out", func(t *testing.T) {
		peer := gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{Timeout: time.Second, ReadyToTrip: func(gobreaker.Counts) bool { return true }})
		b := Must(NewCircuitBreaker(CircuitBreakerConfig{Failures: 1, OpenFor: time.Second}))
		done, err := peer.Allow()
		require.NoError(t, err)
		done(errDown)
		_ = b.Do(t.Context(), returning(errDown))
		time.Sleep(time.Second + 1)
		_, err = peer.Allow()
		require.NoError(t, err)
		lost := begin(t.Context(), b)
		time.Sleep(time.Hour)
		_, err = peer.Allow()
		require.ErrorIs(t, err, gobreaker.ErrTooManyRequests)
		require.NoError(t, b.Do(t.Context(), returning(nil)))
		require.Equal(t, Closed, b.State())
		require.Error(t, lost.end(errDown))
		require.Equal(t, Closed, b.State())
	}},
}

func TestPeerDifferences(t *testing.T) {
	for _, d := range peerDifferences {
		t.Run(d.name, func(t *testing.T) {
			t.Log("reason: " + d.why)
			synctest.Test(t, d.show)
		})
	}
}
