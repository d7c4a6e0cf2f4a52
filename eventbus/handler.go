package eventbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

	// set by start
	chain    message.HandlerFunc
	hard     context.Context // ends when running handlers must give up
	draining <-chan struct{} // closed when no new event is taken
	log      *slog.Logger
	running  atomic.Int64
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
	if len(p.Delays) > 0 && !p.KeepOrder && !can.Delay {
		return fmt.Errorf("delayed retries that let other events overtake: %w (%s); set KeepOrder or leave Delays empty", ErrUnsupported, b.name)
	}
	if p.KeepOrder && !can.KeyOrder {
		return fmt.Errorf("KeepOrder: order per key: %w (%s)", ErrUnsupported, b.name)
	}
	return nil
}

// start prepares the handler for its deliveries. drain ends the intake, hard
// ends the handlers.
func (h *handler) start(drain, hard context.Context, log *slog.Logger) {
	h.cfg.retry = h.cfg.retry.withDefaults(h.service.bus.Capabilities().Delay)
	h.hard, h.draining, h.log = hard, drain.Done(), log.With("topic", h.topic, "group", h.group)
	h.chain = func(m *message.Message) ([]*message.Message, error) { return nil, h.call(m) }
	for i := len(h.service.middleware) - 1; i >= 0; i-- {
		h.chain = h.service.middleware[i](h.chain)
	}
}

func (h *handler) subscription() driver.Subscription {
	return driver.Subscription{Topic: h.topic, Group: h.group, Concurrency: h.cfg.concurrency, Start: h.cfg.start, Handle: h.deliver}
}

// redeliver gives an event back, to be had again at once.
var redeliver = driver.Result{Redeliver: true, Hold: true}

// incoming is a delivery with what its tries and a dead letter start from.
type incoming struct {
	*driver.Delivery
	values   context.Context  // what the subscriber put into the message's context
	payload  []byte           // what each try begins with
	arrived  []byte           // payload and metadata as they came, for the dead letter
	metadata message.Metadata // the message's own unless unwrapping has changed that
	first    handling         // context of the first try, mostly the only one
}

// receive prepares a delivery for its handler. Errors are permanent.
func receive(d *driver.Delivery) (*incoming, error) {
	m := d.Message
	if m.Metadata == nil {
		m.Metadata = message.Metadata{}
	}
	if eventID(m) == "" {
		m.UUID = d.Topic + "/" + d.Position.String()
	}
	in := &incoming{Delivery: d, values: m.Context(), arrived: m.Payload, metadata: m.Metadata}
	if isStructured(m) {
		in.metadata = maps.Clone(m.Metadata)
		if err := unwrapStructured(m); err != nil {
			return in, Permanent(fmt.Errorf("topic %q: %w", d.Topic, err))
		}
	}
	in.payload = m.Payload
	return in, nil
}

// deliver is the failure path: tries in place, delayed redelivery, dead letter.
func (h *handler) deliver(d *driver.Delivery) driver.Result {
	h.running.Add(1)
	defer h.running.Add(-1)
	if to := d.Message.Metadata[MetadataRedriveGroup]; to != "" && to != h.group {
		return driver.Result{} // a dead letter sent back to another group
	}
	in, err := receive(d)
	for try := 1; ; try++ {
		if err == nil {
			err = h.try(in, try)
		}
		if err == nil {
			return driver.Result{}
		}
		if res, done := h.fail(in, try, err); done {
			return res
		}
		err = nil
	}
}

// fail decides what follows a failed try. Not done means another try, in place.
func (h *handler) fail(in *incoming, try int, err error) (res driver.Result, done bool) {
	if h.hard.Err() != nil {
		return redeliver, true
	}
	policy, log := h.cfg.retry, h.log.With("event_id", eventID(in.Message), "attempt", in.Attempt, "error", err)
	_, later := retryAfter(err)
	switch {
	case IsPermanent(err):
		return h.bury(in, try, err, log), true
	case try < policy.Tries && !later:
		return redeliver, !h.pause(policy.backoff(try))
	}
	if delay, ok := policy.delay(in.Attempt, err); ok {
		log.Warn("eventbus: handler failed, the event will be delivered again", "delay", delay)
		return driver.Result{Redeliver: true, Delay: delay, Hold: policy.KeepOrder}, true
	}
	return h.bury(in, try, err, log), true
}

// try calls the handler once, in a context of its own.
func (h *handler) try(in *incoming, try int) (err error) {
	m, c := in.Message, &in.first
	if try > 1 {
		c = new(handling)
	}
	m.Payload = in.payload
	c.parent, c.values, c.service, c.message = h.hard, in.values, h.service.name, m
	c.delivery = Delivery{Topic: in.Topic, Group: h.group, Attempt: in.Attempt}
	if h.cfg.timeout > 0 {
		c.deadline = time.Now().Add(h.cfg.timeout)
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

// bury publishes a dead letter. If that fails the event is kept, and its key
// waits: dropping it or overtaking it would both be worse.
func (h *handler) bury(in *incoming, try int, cause error, log *slog.Logger) driver.Result {
	attempts := (in.Attempt-1)*h.cfg.retry.Tries + try
	m := &message.Message{UUID: in.Message.UUID, Metadata: maps.Clone(in.metadata), Payload: in.arrived}
	markDead(m, Delivery{Topic: in.Topic, Group: h.group}, attempts, cause)
	m.SetContext(h.hard)
	if err := h.service.bus.Publish(h.service.cfg.deadLetters, m); err != nil {
		log.Error("eventbus: dead letter could not be published, the event is kept and tried again", "dead_letter_topic", h.service.cfg.deadLetters, "publish_error", err)
		return driver.Result{Redeliver: true, Hold: true, Delay: maxBackoff}
	}
	log.Error("eventbus: event went to the dead-letter topic", "dead_letter_topic", h.service.cfg.deadLetters, "tries", attempts)
	return driver.Result{}
}
