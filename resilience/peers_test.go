package resilience

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	fsbulkhead "github.com/failsafe-go/failsafe-go/bulkhead"
	fsbreaker "github.com/failsafe-go/failsafe-go/circuitbreaker"
	fslimiter "github.com/failsafe-go/failsafe-go/ratelimiter"
	"github.com/sony/gobreaker/v2"
	"pgregory.net/rapid"
)

// The peers read time.Now, so they live in bubbles too and can be asked what
// they would have done at each step. Where they would do something else on
// purpose, peerdifferences_test.go says so.

// peerBreaker is another library's circuit breaker.
type peerBreaker struct {
	call   func(err error) (called bool)
	closed func() bool
}

func failsafeBreaker(b fsbreaker.Builder[any], openFor time.Duration, probes int) peerBreaker {
	cb := b.WithDelay(openFor).WithSuccessThreshold(uint(probes)).Build()
	return peerBreaker{closed: cb.IsClosed, call: func(err error) bool {
		if !cb.TryAcquirePermit() {
			return false
		}
		if err != nil {
			cb.RecordFailure()
		} else {
			cb.RecordSuccess()
		}
		return true
	}}
}

// gobreakerOf ends its open state after openFor and not at it.
func gobreakerOf(s gobreaker.Settings, openFor time.Duration, probes int) peerBreaker {
	s.Timeout, s.MaxRequests = openFor-1, uint32(probes)
	cb := gobreaker.NewCircuitBreaker[any](s)
	return peerBreaker{
		closed: func() bool { return cb.State() == gobreaker.StateClosed },
		call: func(err error) (called bool) {
			_, _ = cb.Execute(func() (any, error) {
				called = true
				return nil, err
			})
			return called
		},
	}
}

type breakerPeersPlan struct {
	cfg    CircuitBreakerConfig
	warmUp int // calls that go well before a new window is compared
	peers  func() map[string]peerBreaker
	steps  []peerStep
}

type peerStep struct {
	fails bool
	pause int
}

var stepsOfPeers = stepsOf(func(rt *rapid.T) peerStep {
	return peerStep{rapid.Bool().Draw(rt, "fails"), max(0, rapid.IntRange(-10, 12).Draw(rt, "pause"))}
})

// tick is the unit of pauses: a step of the time window, whose beginnings
// libraries put at different moments.
const tick = 100 * time.Millisecond

func planBreakerPeers(rt *rapid.T) breakerPeersPlan {
	cfg := CircuitBreakerConfig{OpenFor: 5 * tick, Probes: rapid.IntRange(1, 3).Draw(rt, "probes")}
	p := breakerPeersPlan{steps: stepsOfPeers.Draw(rt, "steps")}
	n := rapid.IntRange(1, 10).Draw(rt, "n")
	switch rapid.SampledFrom([]string{"row", "calls", "period", "all of period"}).Draw(rt, "window") {
	case "row":
		cfg.Failures = n
		p.peers = func() map[string]peerBreaker {
			return map[string]peerBreaker{
				"failsafe":  failsafeBreaker(fsbreaker.NewBuilder[any]().WithFailureThreshold(uint(n)), cfg.OpenFor, cfg.Probes),
				"gobreaker": gobreakerOf(gobreaker.Settings{ReadyToTrip: func(c gobreaker.Counts) bool { return int(c.ConsecutiveFailures) >= n }}, cfg.OpenFor, cfg.Probes),
			}
		}
	case "calls":
		calls := n + rapid.IntRange(0, 10).Draw(rt, "more calls")
		cfg.WindowCalls, cfg.MinCalls, cfg.FailureRate, p.warmUp = calls, calls, float64(n)/float64(calls), calls
		p.peers = func() map[string]peerBreaker {
			return map[string]peerBreaker{
				"failsafe": failsafeBreaker(fsbreaker.NewBuilder[any]().WithFailureThresholdRatio(uint(n), uint(calls)), cfg.OpenFor, cfg.Probes),
			}
		}
	case "period":
		cfg.WindowPeriod, cfg.MinCalls, cfg.FailureRate = 10*tick, n, rapid.SampledFrom([]float64{0.3, 0.5, 1}).Draw(rt, "rate")
		p.peers = func() map[string]peerBreaker {
			return map[string]peerBreaker{
				"gobreaker": gobreakerOf(gobreaker.Settings{Interval: 10 * tick, BucketPeriod: tick, ReadyToTrip: func(c gobreaker.Counts) bool {
					return int(c.Requests) >= n && float64(c.TotalFailures)/float64(c.Requests) >= cfg.FailureRate
				}}, cfg.OpenFor, cfg.Probes),
			}
		}
	case "all of period":
		cfg.WindowPeriod, cfg.MinCalls, cfg.FailureRate = 10*tick, n, 1
		p.peers = func() map[string]peerBreaker {
			return map[string]peerBreaker{
				"failsafe": failsafeBreaker(fsbreaker.NewBuilder[any]().WithFailureRateThreshold(1, uint(n), 10*tick), cfg.OpenFor, cfg.Probes),
			}
		}
	}
	p.cfg = cfg
	return p
}

func playBreakerPeers(p breakerPeersPlan) (int, error) {
	b, peers := Must(NewCircuitBreaker(p.cfg)), p.peers()
	cold := true
	for i, s := range p.steps {
		time.Sleep(time.Duration(s.pause) * tick)
		steps := []peerStep{s}
		if cold = cold || b.State() != Closed; cold && b.State() == Closed {
			cold = false
			steps = append(make([]peerStep, p.warmUp), s)
		}
		for _, s := range steps {
			var err error
			if s.fails {
				err = errDown
			}
			called := false
			_ = b.Do(context.Background(), func(context.Context) error {
				called = true
				return err
			})
			for name, peer := range peers {
				if peer.call(err) != called || peer.closed() != (b.State() == Closed) {
					return i + 1, fmt.Errorf("step %d, %+v: called %v and %v, but not so %s", i, s, called, b.State(), name)
				}
			}
		}
	}
	return len(p.steps), nil
}

func TestCircuitBreakerAgainstPeers(t *testing.T) {
	checkModel(t, peerSteps, planBreakerPeers, playBreakerPeers)
}

type limiterPeersPlan struct {
	interval time.Duration
	calls    int
	smooth   bool
	steps    []peerStep
}

func planLimiterPeers(rt *rapid.T) limiterPeersPlan {
	return limiterPeersPlan{
		interval: rapid.SampledFrom([]time.Duration{1, time.Millisecond, time.Second}).Draw(rt, "interval"),
		calls:    rapid.IntRange(1, 10).Draw(rt, "calls"),
		smooth:   rapid.Bool().Draw(rt, "smooth"),
		steps:    stepsOfPeers.Draw(rt, "steps"),
	}
}

// playLimiterPeers makes calls at whole intervals of smooth limiters, and at
// whole periods of bursty ones.
func playLimiterPeers(p limiterPeersPlan) (int, error) {
	cfg := RateLimiterConfig{Calls: p.calls, Per: p.interval * time.Duration(p.calls)}
	peer, pause, most := fslimiter.NewSmoothWithMaxRate[any](p.interval), p.interval, 3*p.interval
	if !p.smooth {
		cfg.Burst = p.calls
		peer, pause, most = fslimiter.NewBursty[any](uint(p.calls), cfg.Per), cfg.Per, 0
	}
	l := Must(NewRateLimiter(cfg))
	for i, s := range p.steps {
		time.Sleep(time.Duration(s.pause) * pause)
		got, want := time.Duration(l.reserve(now(), int64(most))), peer.TryReservePermit(most)
		if got > most {
			got = -1
		}
		if got != want {
			return i + 1, fmt.Errorf("step %d, %+v: waits %v, failsafe %v", i, s, got, want)
		}
	}
	return len(p.steps), nil
}

func TestRateLimiterAgainstPeers(t *testing.T) {
	checkModel(t, peerSteps, planLimiterPeers, playLimiterPeers)
}

// failsafeBulkhead makes a policy of another library's bulkhead.
func failsafeBulkhead(concurrency int, wait time.Duration) Policy {
	b := fsbulkhead.New[any](uint(concurrency))
	return PolicyFunc(func(ctx context.Context, fn func(context.Context) error) error {
		if err := b.AcquirePermitWithMaxWait(ctx, wait); err != nil {
			return err
		}
		defer b.ReleasePermit()
		return fn(ctx)
	})
}

func playQueuePeers(p queuePlan) (int, error) {
	p.cfg.Queue = 1e6 // failsafe's is unbounded
	policies := []Policy{Must(NewBulkhead(p.cfg)), failsafeBulkhead(p.cfg.Concurrency, p.cfg.MaxWait)}
	var calls [][2]*underWay
	defer func() {
		for _, pair := range calls {
			for _, c := range pair {
				c.cancel()
				c.finish <- nil
			}
		}
	}()
	for i, s := range p.steps {
		switch {
		case s.kind < 10:
			time.Sleep(s.pause)
		case s.kind < 50 && len(calls) > 0:
			n := s.which % len(calls)
			for _, c := range calls[n] {
				if !c.running() {
					c.cancel()
				}
				c.finish <- nil
			}
			calls = append(calls[:n], calls[n+1:]...)
		default:
			calls = append(calls, [2]*underWay{begin(context.Background(), policies[0]), begin(context.Background(), policies[1])})
		}
		synctest.Wait()
		for n, pair := range calls {
			if pair[0].running() != pair[1].running() || len(pair[0].result) != len(pair[1].result) {
				return i + 1, fmt.Errorf("step %d, %+v: call %d is not treated as by failsafe", i, s, n)
			}
		}
	}
	return len(p.steps), nil
}

func TestBulkheadAgainstPeers(t *testing.T) {
	checkModel(t, peerSteps, planQueue, playQueuePeers)
}
