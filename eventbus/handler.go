package eventbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// handler is a subscription and what happens to each of its deliveries.
type handler struct {
	service *Service
	topic   string
	group   string
	cfg     handlerConfig
	call    message.NoPublishHandlerFunc
	keyed   bool // the topic orders its events by key

	// set by start
	chain    message.HandlerFunc
	hard     context.Context // ends when running handlers must give up
	draining <-chan struct{} // closed when no new event is taken
	log      *slog.Logger
	running  atomic.Int64
	paused   atomic.Bool // by its policy
}

// String names the handler in errors.
func (h *handler) String() string {
	return fmt.Sprintf("handler of topic %q in group %q", h.topic, h.group)
}

func (h *handler) validate() error {
	var errs []error
	if h.call == nil {
		errs = append(errs, errors.New("the function is nil"))
	}
	errs = append(errs, driver.CheckTopic(h.topic))
	if h.cfg.name != "" {
		errs = append(errs, driver.CheckGroup(h.group))
	}
	if h.cfg.concurrency < 1 {
		errs = append(errs, fmt.Errorf("Concurrency must be at least 1, got %d", h.cfg.concurrency))
	}
	if h.cfg.timeout == 0 {
		errs = append(errs, errors.New("Timeout must not be 0; a negative one means no timeout"))
	}
	if h.topic == h.service.cfg.deadLetters {
		errs = append(errs, errors.New("this is the service's own dead-letter topic; an event that fails there would go round for ever, so read it from another service"))
	}
	errs = append(errs, h.cfg.retry.validate(), h.checkCapabilities())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", h, err)
	}
	return nil
}

func (h *handler) checkCapabilities() error {
	b := h.service.bus
	if b == nil {
		return nil
	}
	can, p := b.Capabilities(), h.cfg.retry
	var errs []error
	if h.keyed && !can.KeyOrder && !h.cfg.unordered {
		errs = append(errs, fmt.Errorf("the topic is ordered by key (KeyBy): %w (%s); accept that with eventbus.Unordered", ErrUnsupported, b.name))
	}
	if len(p.Delays) > 0 && !p.KeepOrder && !can.DelayedRedelivery {
		errs = append(errs, fmt.Errorf("delayed retries that let other events overtake: %w (%s); set KeepOrder or leave Delays empty", ErrUnsupported, b.name))
	}
	if p.KeepOrder && !can.KeyOrder {
		errs = append(errs, fmt.Errorf("KeepOrder: order per key: %w (%s)", ErrUnsupported, b.name))
	}
	for _, missing := range can.Lacks(h.cfg.requires) {
		errs = append(errs, fmt.Errorf("Requires: %s: %w (%s)", missing, ErrUnsupported, b.name))
	}
	return errors.Join(errs...)
}

// start prepares the handler for its deliveries. drain ends the intake, hard
// ends the handlers.
func (h *handler) start(drain, hard context.Context, log *slog.Logger) {
	h.cfg.retry = h.cfg.retry.withDefaults(h.service.bus.Capabilities().DelayedRedelivery)
	h.hard, h.draining, h.log = hard, drain.Done(), log.With("topic", h.topic, "group", h.group)
	h.chain = func(m *message.Message) ([]*message.Message, error) { return nil, h.call(m) }
	for i := len(h.service.middleware) - 1; i >= 0; i-- {
		h.chain = h.service.middleware[i](h.chain)
	}
}

func (h *handler) subscription() driver.Subscription {
	return driver.Subscription{Topic: h.topic, Group: h.group, Concurrency: h.cfg.concurrency, Start: h.cfg.start, Handle: h.deliver}
}

// giveBack returns an event to the broker for no fault of its own.
var giveBack = driver.Result{Redeliver: true, Hold: true, Uncounted: true}

// deliver is the way of an event: tries in place, delayed redelivery, dead
// letter.
func (h *handler) deliver(d *driver.Delivery) driver.Result {
	h.running.Add(1)
	defer h.running.Add(-1)
	in, err := receive(d)
	if forOthers(in.cause.redrive, d.Topic, h.group) {
		return driver.Result{}
	}
	paused := pausing{handler: h}
	for try := 1; ; try++ {
		if err == nil {
			err = h.try(in, try)
		}
		if err == nil {
			paused.over()
			return driver.Result{}
		}
		v := judge(err)
		if v.rejected && !in.called.Load() {
			if !paused.wait(v) {
				return giveBack
			}
			try--
		} else if res, done := h.fail(in, try, v); done {
			return res
		}
		err = nil
	}
}

// fail does what the policy says about a failed try. Not done means another
// try, in place.
func (h *handler) fail(in *incoming, try int, v verdict) (res driver.Result, done bool) {
	if h.hard.Err() != nil {
		return giveBack, true
	}
	log := h.log.With("event_id", in.cause.ID, "attempt", in.Attempt, "error", v.text)
	next, pause := h.cfg.retry.decide(in.Attempt, try, v)
	if next != deadEnd && in.expiresWithin(pause) {
		next, v.text = deadEnd, fmt.Sprintf("%v before it could be tried again: %s", ErrExpired, v.text)
	}
	switch next {
	case tryAgain:
		return giveBack, !h.pause(pause)
	case redeliver:
		log.Warn("eventbus: handler failed, the event will be delivered again", "delay", pause)
		return driver.Result{Redeliver: true, Delay: pause, Hold: h.cfg.retry.KeepOrder}, true
	}
	return h.bury(in, v, log), true
}

// try calls the handler, through its policy if it has one.
func (h *handler) try(in *incoming, try int) error {
	if in.expiresWithin(0) {
		return Permanent(fmt.Errorf("%s: event %s: %w at %v", h, in.cause.ID, ErrExpired, in.expires))
	}
	in.called.Store(false)
	if h.cfg.policy == nil {
		return h.once(h.hard, in, try)
	}
	return h.through(in, try)
}

// once calls the handler once, in a context of its own.
func (h *handler) once(parent context.Context, in *incoming, try int) (err error) {
	in.called.Store(true)
	m, c := in.Message, &in.first
	if !in.used.CompareAndSwap(false, true) {
		c, m = new(handling), in.again()
	}
	c.parent, c.values, c.service, c.cause = parent, in.values, h.service.name, &in.cause
	c.delivery = Delivery{Topic: in.Topic, Group: h.group, Attempt: in.Attempt}
	c.previous = in.previous(try)
	if h.cfg.timeout > 0 {
		c.deadline = time.Now().Add(h.cfg.timeout)
	}
	if !in.expires.IsZero() && (c.deadline.IsZero() || in.expires.Before(c.deadline)) {
		c.deadline = in.expires
	}
	defer func() {
		c.finish()
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	m.SetContext(c)
	produced, err := h.chain(m)
	if err == nil && len(produced) > 0 {
		err = Permanent(fmt.Errorf("a middleware of %s returned %d messages to publish; publish them in the handler instead", h, len(produced)))
	}
	return err
}

// pause waits between tries; it reports false when the service is stopping.
func (h *handler) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-h.draining:
		return false
	}
}
