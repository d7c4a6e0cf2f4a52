package resilience_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/resilience"
)

// The herd: 1,000 clients in 50 processes call a dependency that has room for
// their load and a third more, dies, and comes back cold. The policies are the
// real ones, the time is virtual, and all that is random is seeded.
const (
	herdProcesses  = 50
	herdPerProcess = 20
	herdRate       = 140 // calls per second, of all clients together
	herdTimeout    = time.Second

	herdDies   = 10 * time.Second
	herdReturn = 40 * time.Second
	herdWarm   = 50 * time.Second
	herdEnd    = 120 * time.Second
)

// herd is a way to call the dependency.
type herd struct {
	name string
	// policy makes a process's policy; random is its own.
	policy func(random func() float64) (*resilience.Retry, *resilience.Pipeline)
	// limited puts an adaptive limiter before the server.
	limited bool
}

var herds = []herd{
	{name: "3 retries, a second apart", policy: naivePolicy},
	{name: "Retry with its defaults: jitter and budget", policy: defaultPolicy},
	{name: "the same and a CircuitBreaker", policy: breakerPolicy},
	{name: "the same and an AdaptiveLimiter at the server", policy: breakerPolicy, limited: true},
}

func herdPipeline(retry *resilience.Retry, inner ...resilience.Policy) (*resilience.Retry, *resilience.Pipeline) {
	attempt := resilience.Must(resilience.NewTimeout(resilience.TimeoutConfig{After: herdTimeout}))
	policies := append([]resilience.Policy{retry}, append(inner, attempt)...)
	return retry, resilience.Must(resilience.NewPipeline("herd", policies...))
}

func naivePolicy(func() float64) (*resilience.Retry, *resilience.Pipeline) {
	return herdPipeline(resilience.Must(resilience.NewRetry(resilience.RetryConfig{
		Attempts: 4,
		Backoff:  resilience.Backoff{Shape: resilience.Fixed, Base: time.Second, Jitter: -1},
		Budget:   resilience.Unlimited(),
	})))
}

func defaultPolicy(random func() float64) (*resilience.Retry, *resilience.Pipeline) {
	return herdPipeline(resilience.Must(resilience.NewRetry(resilience.RetryConfig{Random: random})))
}

func breakerPolicy(random func() float64) (*resilience.Retry, *resilience.Pipeline) {
	retry := resilience.Must(resilience.NewRetry(resilience.RetryConfig{Random: random}))
	breaker := resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{WindowCalls: 20, OpenFor: 5 * time.Second}))
	return herdPipeline(retry, breaker)
}

type perSecond [herdEnd / time.Second]int

func (s perSecond) between(from, to time.Duration) (n int) {
	for _, v := range s[from/time.Second : to/time.Second] {
		n += v
	}
	return n
}

// herdRun is what came of a herd.
type herdRun struct {
	herd
	mu        sync.Mutex
	offered   perSecond // attempts that reached the server
	good      perSecond // calls that succeeded
	begun     perSecond // calls by their beginning
	succeeded perSecond // of those
	retries   int64
}

func (r *herdRun) count(seconds *perSecond, at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := int(at / time.Second); i < len(seconds) {
		seconds[i]++
	}
}

// run simulates the herd in a bubble.
func (h herd) run(t *testing.T) *herdRun {
	r := &herdRun{herd: h}
	synctest.Test(t, func(t *testing.T) {
		server := newHerdServer(r)
		var clients sync.WaitGroup
		var retries []*resilience.Retry
		for process := range herdProcesses {
			retry, policy := h.policy(herdRandom(process))
			retries = append(retries, retry)
			for client := range herdPerProcess {
				arrivals := rand.New(rand.NewPCG(uint64(process), uint64(client))) //nolint:gosec // the same each time
				clients.Go(func() { r.client(t.Context(), server, policy, arrivals) })
			}
		}
		clients.Wait()
		for _, retry := range retries {
			r.retries += retry.Stats().Retries
		}
	})
	return r
}

// herdRandom returns random numbers for concurrent use, the same each time.
func herdRandom(seed int) func() float64 {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(uint64(seed), herdRate)) //nolint:gosec // the same each time
	return func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return random.Float64()
	}
}

// client makes calls at random times, however long they take: behind it are
// people, who don't know about each other.
func (r *herdRun) client(ctx context.Context, server *herdServer, policy resilience.Policy, arrivals *rand.Rand) {
	const mean = time.Second * herdProcesses * herdPerProcess / herdRate
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		time.Sleep(time.Duration(arrivals.ExpFloat64() * float64(mean)))
		at := server.now()
		if at >= herdEnd {
			return
		}
		calls.Go(func() {
			r.count(&r.begun, at)
			if policy.Do(ctx, server.call) == nil {
				r.count(&r.succeeded, at)
				r.count(&r.good, server.now())
			}
		})
	}
}

// success is the share of the calls begun in [from, to) that succeeded.
func (r *herdRun) success(from, to time.Duration) float64 {
	return float64(r.succeeded.between(from, to)) / float64(r.begun.between(from, to))
}

// recovery is how long after the dependency's return 95 % of the calls of each
// second succeed again, for good.
func (r *herdRun) recovery() (after time.Duration, ok bool) {
	bad := herdEnd - time.Second
	for bad >= herdReturn && r.success(bad, bad+time.Second) >= 0.95 {
		bad -= time.Second
	}
	return bad + time.Second - herdReturn, bad < herdEnd-time.Second
}

func TestThunderingHerd(t *testing.T) {
	runs := make([]*herdRun, len(herds))
	t.Run("run", func(t *testing.T) {
		for i, h := range herds {
			t.Run(h.name, func(t *testing.T) {
				t.Parallel()
				runs[i] = h.run(t)
			})
		}
	})
	for _, r := range runs {
		require.NotNil(t, r, "all are compared")
	}
	naive, budget, breaker, full := runs[0], runs[1], runs[2], runs[3]

	t.Run("without jitter, budget and breaker it collapses again", func(t *testing.T) {
		_, recovered := naive.recovery()
		require.False(t, recovered)
		require.Greater(t, slices.Max(naive.good[herdReturn/time.Second:]), herdColdCapacity/2, "it was up")
		require.Less(t, naive.success(herdEnd-30*time.Second, herdEnd), 0.01)
		require.Greater(t, naive.offered.between(herdEnd-30*time.Second, herdEnd), 30*2*herdCapacity, "retries keep it down")
	})
	t.Run("retries are within the budget", func(t *testing.T) {
		for _, r := range runs[1:] {
			require.LessOrEqual(t, float64(r.retries), 100*herdProcesses+0.2*float64(r.begun.between(0, herdEnd)), r.name)
			require.Less(t, r.offered.between(herdWarm, herdEnd), int((herdEnd-herdWarm)/time.Second)*herdCapacity, "%s: retries of its own", r.name)
		}
	})
	t.Run("it recovers", func(t *testing.T) {
		for r, within := range map[*herdRun]time.Duration{budget: time.Minute, breaker: 20 * time.Second, full: 15 * time.Second} {
			after, recovered := r.recovery()
			require.True(t, recovered, r.name)
			require.LessOrEqual(t, after, within, r.name)
		}
	})
	t.Run("an open breaker spares it while it is down", func(t *testing.T) {
		const late = 10 * time.Second
		for _, r := range []*herdRun{breaker, full} {
			require.Less(t, r.offered.between(herdReturn-late, herdReturn), r.begun.between(herdReturn-late, herdReturn)/5, r.name)
		}
	})
	t.Run("with all of it there is no second collapse", func(t *testing.T) {
		for i, good := range full.good[herdReturn/time.Second+2:] {
			require.Greater(t, good, herdColdCapacity*3/4, "second %d after its return", i+2)
		}
	})
	t.Run("the guide says so", func(t *testing.T) {
		if runtime.GOARCH != "amd64" {
			t.Skip("other processors round otherwise")
		}
		keepFile(t, "../docs/resilience-herd.svg", herdPlot(runs))
		keepTable(t, "../docs/resilience.md", herdTable(runs))
	})
}
