package amqpbus

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// link is a connection that is made again whenever it is lost. It starts when
// it is first needed.
type link struct {
	cfg     *Config
	log     *slog.Logger
	purpose string

	life context.Context // ends with close
	end  context.CancelFunc
	done sync.WaitGroup

	mu      sync.Mutex
	started bool
	now     *session      // nil while there is none
	err     error         // why
	changed chan struct{} // closed when now or err changes
}

func newLink(c *Config, purpose string) *link {
	l := &link{cfg: c, log: c.Logger, purpose: purpose, changed: make(chan struct{})}
	l.life, l.end = context.WithCancel(context.Background())
	return l
}

// adopt starts the link with a connection that exists.
func (l *link) adopt(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started, l.now = true, s
	l.done.Go(func() { l.keep(s) })
}

// get returns the connection, waiting for it until ctx ends.
func (l *link) get(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		if !l.started && l.life.Err() == nil {
			l.started = true
			l.done.Go(func() { l.keep(nil) })
		}
		now, changed := l.now, l.changed
		l.mu.Unlock()
		switch {
		case l.life.Err() != nil:
			return nil, driver.ErrClosed
		case now != nil && now.alive():
			return now, nil
		}
		select {
		case <-changed:
		case <-l.life.Done():
		case <-ctx.Done():
			return nil, withReason(context.Cause(ctx), l.reason())
		}
	}
}

// withReason adds why there is no connection to why nobody waits any longer.
func withReason(cause, reason error) error {
	if reason == nil {
		return cause
	}
	return fmt.Errorf("%w: %w", cause, reason)
}

// reason returns why there is no connection, nil if there is one.
func (l *link) reason() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != nil {
		if why := l.now.blocked.Load(); why != nil {
			return fmt.Errorf("the broker takes no publishes at the moment: %s", *why)
		}
		return nil
	}
	if l.err == nil {
		return nil
	}
	return fmt.Errorf("not connected: %w", l.err)
}

func (l *link) set(s *session, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now, l.err = s, err
	close(l.changed)
	l.changed = make(chan struct{})
}

const minBackoff, maxBackoff = 50 * time.Millisecond, 5 * time.Second

func (l *link) keep(s *session) {
	pause := minBackoff
	down := false
	for {
		if l.life.Err() != nil {
			if s != nil {
				s.close()
			}
			l.set(nil, driver.ErrClosed)
			return
		}
		if s == nil {
			var err error
			if s, err = l.cfg.dial(l.life, l.purpose); err != nil {
				l.set(nil, err)
				if !down {
					l.log.Warn("amqpbus: no connection, it will be tried again until there is one", "purpose", l.purpose, "error", err.Error())
				}
				down = true
				wait(l.life, jitter(pause))
				pause = min(2*pause, maxBackoff)
				continue
			}
			if down {
				l.log.Info("amqpbus: connected again", "purpose", l.purpose)
			}
		}
		l.set(s, nil)
		since := time.Now()
		select {
		case <-s.gone:
			l.set(nil, s.err)
			l.log.Warn("amqpbus: connection lost, making another", "purpose", l.purpose, "error", s.err.Error())
			down = true
			if time.Since(since) > maxBackoff {
				pause = minBackoff
			} else { // it is refused right after it is made
				wait(l.life, jitter(pause))
				pause = min(2*pause, maxBackoff)
			}
		case <-l.life.Done():
			s.close()
		}
		s = nil
	}
}

// close ends the connection and waits for its goroutines.
func (l *link) close() {
	l.end()
	l.mu.Lock()
	l.started = true
	l.mu.Unlock()
	l.done.Wait()
}

// wait returns after d, or early and false when ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jitter keeps many clients from coming back at the same time.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1)
}
