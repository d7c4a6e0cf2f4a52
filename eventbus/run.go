package eventbus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// lastGrace is how long Run waits for handlers and runners whose context has
// ended before it gives up on them.
const lastGrace = 5 * time.Second

// Run joins the consumer groups, starts runners and handlers and blocks until
// ctx ends or one of them fails. Then, in this order: no new events are taken;
// running handlers finish, within the drain timeout; runners stop. It returns
// nil after a clean stop because of ctx. Handlers that ignore the end of their
// context are named in the error; their events will be delivered again.
// Run leaves the Bus open.
func (s *Service) Run(ctx context.Context) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if !s.started.CompareAndSwap(false, true) {
		return fmt.Errorf("eventbus: service %q: Run was called twice; make a new Service to run again", s.name)
	}
	r := newRun(ctx, s)
	defer r.end()
	if err := r.subscribe(ctx); err != nil {
		r.abandon()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	r.start()
	close(s.ready)
	select {
	case <-ctx.Done():
	case <-r.failed:
	}
	return r.stop()
}

// run is one execution of a Service.
type run struct {
	service   *Service
	consumers []driver.Consumer

	intake, hard, runners   context.Context
	stopIntake, stopRunners context.CancelFunc
	stopHard                context.CancelCauseFunc

	handling, running sync.WaitGroup // consumers, runners
	returned          []atomic.Bool  // which consumers have

	mu     sync.Mutex
	errs   []error
	failed chan struct{} // closed by the first failure
}

// newRun derives contexts that keep ctx's values but end on their own, so that
// stopping has an order.
func newRun(ctx context.Context, s *Service) *run {
	r := &run{service: s, failed: make(chan struct{})}
	base := context.WithoutCancel(ctx)
	r.intake, r.stopIntake = context.WithCancel(base)
	r.hard, r.stopHard = context.WithCancelCause(base)
	r.runners, r.stopRunners = context.WithCancel(base)
	return r
}

func (r *run) subscribe(ctx context.Context) error {
	log := r.service.log()
	for _, h := range r.service.handlers {
		h.start(r.intake, r.hard, log)
		c, err := r.service.bus.broker.Subscribe(ctx, h.subscription())
		if err != nil {
			return fmt.Errorf("eventbus: service %q: %s: %w", r.service.name, h, err)
		}
		r.consumers = append(r.consumers, c)
	}
	return nil
}

// abandon gives up the memberships of a run that could not get all of them.
func (r *run) abandon() {
	r.stopIntake()
	for _, c := range r.consumers {
		_ = c.Run(r.intake) // the error that led here counts
	}
}

func (r *run) start() {
	r.returned = make([]atomic.Bool, len(r.consumers))
	for i, runner := range r.service.runners {
		r.running.Go(func() {
			err := runner.Run(r.runners)
			if r.runners.Err() == nil || err != nil && !errors.Is(err, context.Canceled) {
				r.fail(fmt.Errorf("runner %d (%T) ended: %w", i+1, runner, orEarly(err)))
			}
		})
	}
	for i, c := range r.consumers {
		h := r.service.handlers[i]
		r.handling.Go(func() {
			defer r.returned[i].Store(true)
			if err := c.Run(r.intake); r.intake.Err() == nil || err != nil {
				r.fail(fmt.Errorf("%s: %w", h, orEarly(err)))
			}
		})
	}
}

var errEarly = errors.New("it returned before the service was stopped")

func orEarly(err error) error {
	if err == nil {
		return errEarly
	}
	return err
}

func (r *run) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.errs = append(r.errs, err); len(r.errs) == 1 {
		close(r.failed)
	}
}

func (r *run) stop() error {
	r.stopIntake()
	if !within(r.service.cfg.drainTimeout, &r.handling) {
		r.stopHard(ErrShutdown)
		if !within(lastGrace, &r.handling) {
			if err := r.stuck(); err != nil {
				r.fail(err)
			}
		}
	}
	r.stopRunners()
	if !within(lastGrace, &r.running) {
		r.fail(fmt.Errorf("runners did not return within %v of being stopped", lastGrace))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := errors.Join(r.errs...); err != nil {
		return fmt.Errorf("eventbus: service %q: %w", r.service.name, err)
	}
	return nil
}

// end releases the contexts.
func (r *run) end() {
	r.stopIntake()
	r.stopHard(ErrShutdown)
	r.stopRunners()
}

// stuck names the handlers that ignore the end of their context, and the
// consumers that don't return all the same.
func (r *run) stuck() error {
	var errs []error
	for i, h := range r.service.handlers {
		switch n := h.running.Load(); {
		case n > 0:
			errs = append(errs, fmt.Errorf("%s: %d calls still run %v after their context ended; they must watch ctx", h, n, lastGrace))
		case !r.returned[i].Load():
			errs = append(errs, fmt.Errorf("%s: the broker's consumer did not return although no call runs", h))
		}
	}
	return errors.Join(errs...)
}

// within waits for wg and reports whether it was done in time. If not, the
// waiting goroutine stays until it is.
func within(d time.Duration, wg *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}
