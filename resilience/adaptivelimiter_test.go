package resilience

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// server answers so many calls at a time, each in the same time; the others
// wait for their turn.
type server struct {
	places chan struct{}
	takes  time.Duration
}

func newServer(capacity int) *server {
	return &server{make(chan struct{}, capacity), 20 * time.Millisecond}
}

func (s *server) call(context.Context) error {
	s.places <- struct{}{}
	defer func() { <-s.places }()
	time.Sleep(s.takes)
	return nil
}

// load offers calls at a rate to p, for so long, and returns how many passed.
func load(p Policy, perSecond float64, d time.Duration, fn func(context.Context) error) (passed, rejected int) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
	var mu sync.Mutex
	var wg sync.WaitGroup
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Duration(random.ExpFloat64() / perSecond * float64(time.Second)))
		wg.Go(func() {
			err := p.Do(context.Background(), fn)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, ErrOverloaded) {
				rejected++
			} else {
				passed++
			}
		})
	}
	wg.Wait()
	return passed, rejected
}

// The server has 20 places of 20 ms, which is 1,000 calls a second; it is offered
// half more for a minute. The limit settles between its capacity and a queue that
// makes calls take two and a half times as long, the server stays busy, and the
// rest is shed. When the server changes, the limit follows within half a minute.
func TestAdaptiveLimiterFindsTheCapacity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Must(NewAdaptiveLimiter(AdaptiveLimiterConfig{}))
		s := newServer(20)
		_, rejected := load(l, 500, 5*time.Second, s.call)
		require.Zero(t, rejected, "nothing is shed while there is room")
		for range 6 {
			passed, rejected := load(l, 1500, 10*time.Second, s.call)
			require.GreaterOrEqual(t, l.exact, 20.)
			require.LessOrEqual(t, l.exact, 50.)
			require.GreaterOrEqual(t, passed, 9500, "the server is busy")
			require.Greater(t, rejected, 4000)
		}
		for _, changed := range []struct {
			capacity int
			takes    time.Duration
		}{{5, 20 * time.Millisecond}, {40, 20 * time.Millisecond}, {40, 60 * time.Millisecond}, {20, 20 * time.Millisecond}} {
			s.places, s.takes = make(chan struct{}, changed.capacity), changed.takes
			possible := float64(changed.capacity) / changed.takes.Seconds()
			load(l, 1.5*possible, 30*time.Second, s.call)
			passed, _ := load(l, 1.5*possible, 5*time.Second, s.call)
			require.GreaterOrEqual(t, float64(passed), 0.9*5*possible, "%+v", changed)
			require.GreaterOrEqual(t, l.exact, float64(changed.capacity), "%+v", changed)
			require.LessOrEqual(t, l.exact, 3*float64(changed.capacity), "%+v", changed)
		}
		require.Zero(t, l.Stats().Running)
	})
}

// Errors that mean overload bring the limit down, others don't.
func TestAdaptiveLimiterHearsOfOverload(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		lower bool
	}{
		"throttled":         {AsThrottled(errDown, time.Second), true},
		"timed out":         {context.DeadlineExceeded, true},
		"failed":            {errDown, false},
		"cancelled":         {context.Canceled, false},
		"rejected":          {errWithoutTurn, false},
		"gave up waiting":   {&waitError{"bulkhead", context.DeadlineExceeded}, false},
		"nothing went awry": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := Must(NewAdaptiveLimiter(AdaptiveLimiterConfig{Min: 4}))
				for range 500 {
					_ = l.Do(t.Context(), func(context.Context) error {
						time.Sleep(10 * time.Millisecond)
						return test.err
					})
				}
				if test.lower {
					require.Equal(t, 4, l.Stats().Limit)
				} else {
					require.Equal(t, 20, l.Stats().Limit)
				}
			})
		})
	}
}

// A call that is turned away takes no room while its Observer is told.
func TestAdaptiveLimiterRejectionsTakeNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Must(NewAdaptiveLimiter(AdaptiveLimiterConfig{Max: 1, Observer: func(Event) { time.Sleep(time.Minute) }}))
		first := begin(t.Context(), l)
		var rejected []*underWay
		for range 10 {
			rejected = append(rejected, begin(t.Context(), l))
		}
		require.Equal(t, 1, l.Stats().Running)
		require.NoError(t, first.end(nil))
		require.NoError(t, l.Do(t.Context(), returning(nil)))
		for _, u := range rejected {
			require.ErrorIs(t, <-u.result, ErrOverloaded)
		}
		require.Equal(t, AdaptiveLimiterStats{Limit: 1, Rejected: 10}, l.Stats())
	})
}

func TestAdaptiveLimiterNeverLetsMoreThanItsLimitThrough(t *testing.T) {
	l := Must(NewAdaptiveLimiter(AdaptiveLimiterConfig{Max: 5}))
	var wg sync.WaitGroup
	var mu sync.Mutex
	running := 0
	for range 50 {
		wg.Go(func() {
			for range 200 {
				_ = l.Do(context.Background(), func(context.Context) error {
					mu.Lock()
					running++
					if running > 5 {
						t.Error("too many")
					}
					mu.Unlock()
					mu.Lock()
					running--
					mu.Unlock()
					return nil
				})
			}
		})
	}
	wg.Wait()
	require.Zero(t, l.Stats().Running)
}
