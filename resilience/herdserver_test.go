package resilience_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/millrace-go/millrace/resilience"
)

// The dependency answers one request after the other, first come first served,
// also those whose client has given up: it can't know. When it returns from the
// dead its caches are cold.
const (
	herdCapacity     = 200 // requests per second
	herdColdCapacity = herdCapacity / 2
	herdLatency      = 20 * time.Millisecond // besides queueing
	herdBacklog      = 2000                  // requests that wait; more are refused
)

var (
	errRefused     = errors.New("connection refused")
	errUnavailable = errors.New("503 Service Unavailable")
)

type herdServer struct {
	start   time.Time
	run     *herdRun
	limiter resilience.Policy

	mu   sync.Mutex
	free time.Duration // when the last request will have been answered
}

func newHerdServer(r *herdRun) *herdServer {
	s := &herdServer{start: time.Now(), run: r}
	if r.limited {
		s.limiter = resilience.Must(resilience.NewAdaptiveLimiter(resilience.AdaptiveLimiterConfig{}))
	}
	return s
}

func (s *herdServer) now() time.Duration { return time.Since(s.start) }

// call is an attempt of a client. When it gives up, the server goes on.
func (s *herdServer) call(ctx context.Context) error {
	at := s.now()
	s.run.count(&s.run.offered, at)
	switch {
	case at >= herdDies && at < herdReturn:
		return s.refuse()
	case s.limiter == nil:
		return s.serve(ctx)
	}
	answer := make(chan error, 1)
	go func() { answer <- s.limiter.Do(context.WithoutCancel(ctx), s.serve) }()
	select {
	case err := <-answer:
		if resilience.IsRejected(err) {
			return resilience.AsThrottled(errUnavailable, 0) // as it arrives over the wire
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// serve waits for the answer, or for the end of the client's patience.
func (s *herdServer) serve(ctx context.Context) error {
	wait, ok := s.enqueue()
	if !ok {
		return s.refuse()
	}
	answered := time.NewTimer(wait)
	defer answered.Stop()
	select {
	case <-answered.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *herdServer) refuse() error {
	time.Sleep(time.Millisecond)
	return errRefused
}

// enqueue returns how long it will be until the request is answered, or false
// when no more may wait.
func (s *herdServer) enqueue() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	each := time.Second / herdCapacity
	if now >= herdReturn && now < herdWarm {
		each = time.Second / herdColdCapacity
	}
	s.free = max(s.free, now)
	if (s.free-now)/each >= herdBacklog {
		return 0, false
	}
	s.free += each
	return s.free - now + herdLatency, true
}
