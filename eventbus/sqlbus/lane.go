package sqlbus

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// lane commits ops that lock the same rows of a server, one transaction at a
// time and as many ops in each as have gathered. It has a goroutine only while
// it has ops.
type lane struct {
	queue
	server *server
	commit func([]*op) error

	running bool      // under mu
	rested  time.Time // under mu: when it last stopped running
	last    error     // under mu: of an attempt that is to be repeated
	written string    // of the goroutine alone: the id of the last batch of events
}

// errUnknown is about a transaction of which the server's answer is missing.
var errUnknown = errors.New("it is not known whether the commit went through")

// await returns what became of o, or leaves it when ctx ends.
func (l *lane) await(ctx context.Context, o *op) error {
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
	}
	if !l.abandon(o) {
		return fmt.Errorf("%w while the transaction was under way: %w", context.Cause(ctx), errUnknown)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last != nil {
		return fmt.Errorf("%w after an attempt that failed: %w", context.Cause(ctx), l.last)
	}
	return context.Cause(ctx)
}

func (l *lane) start(o *op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, o)
	if !l.running {
		l.running = true
		l.server.working.Go(l.loop)
	}
}

// rest reports whether nothing is left to do.
func (l *lane) rest() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running, l.rested = len(l.ops) > 0, time.Now()
	if !l.running {
		l.last = nil
	}
	return !l.running
}

func (l *lane) idleFor() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running {
		return 0
	}
	return time.Since(l.rested)
}

const (
	minLaneWait = 5 * time.Millisecond
	maxLaneWait = time.Second
)

func (l *lane) loop() {
	for pause := time.Duration(0); !l.rest(); {
		batch := l.take()
		err := l.commit(batch)
		switch {
		case err == nil:
			pause = 0
			l.failed(nil)
			for _, o := range batch {
				o.finish(nil)
			}
		case l.server.verdict(err) != refused:
			l.later(batch, err)
			pause = min(max(2*pause, minLaneWait), maxLaneWait)
			wait(l.server.open, nil, jitter(pause))
		case len(batch) == 1:
			batch[0].finish(err)
		default:
			l.again(batch, true)
		}
	}
}

// failed keeps the reason for those whose contexts end before they succeed.
func (l *lane) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = err
}

func (l *lane) later(batch []*op, err error) {
	l.failed(err)
	l.again(batch, false)
	if l.server.open.Err() != nil {
		for _, o := range l.take() {
			o.finish(err)
		}
	}
}

// verdict is what an error says about the transaction in which it came up.
type verdict int

const (
	refused  verdict = iota // the server won't do it, now or later
	conflict                // it was rolled back; another try may succeed
	lost                    // it may or may not have been committed
)
