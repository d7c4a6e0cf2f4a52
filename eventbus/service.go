package eventbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/eventbus/driver"
)

// Service is one consumer group with its handlers and whatever else has to
// start and stop with them. Declare everything first, then call Run once.
type Service struct {
	name       string
	bus        *Bus
	cfg        serviceConfig
	handlers   []*handler
	middleware []message.HandlerMiddleware
	runners    []Runner
	errs       []error
	started    atomic.Bool
	ready      chan struct{}
}

// Runner is something that runs beside the handlers: an outbox relay, a timer,
// an HTTP server. Run must return soon after ctx ended; an error, or a return
// before that, ends the service.
type Runner interface {
	Run(ctx context.Context) error
}

// RunnerFunc is a function as a Runner.
type RunnerFunc func(ctx context.Context) error

// Run calls f.
func (f RunnerFunc) Run(ctx context.Context) error { return f(ctx) }

// ServiceOption configures a Service.
type ServiceOption func(*serviceConfig)

type serviceConfig struct {
	defaults     handlerConfig
	drainTimeout time.Duration
	logger       *slog.Logger
	deadLetters  string
}

// Defaults sets options for all handlers of the service; those given to
// Subscribe come after.
func Defaults(opts ...HandlerOption) ServiceOption {
	return func(c *serviceConfig) {
		for _, opt := range opts {
			opt(&c.defaults)
		}
	}
}

// DrainTimeout bounds how long Run waits for running handlers after its ctx
// ended. Then their contexts end, with cause ErrShutdown, and Run waits a last
// five seconds. Defaults to 20 s.
func DrainTimeout(d time.Duration) ServiceOption {
	return func(c *serviceConfig) { c.drainTimeout = d }
}

// Logger sets the service's logger. Defaults to slog.Default().
func Logger(l *slog.Logger) ServiceOption {
	return func(c *serviceConfig) { c.logger = l }
}

// DeadLetterTopic names the topic for events that can't be handled. Defaults to
// the service's name plus ".dead-letter".
func DeadLetterTopic(topic string) ServiceOption {
	return func(c *serviceConfig) { c.deadLetters = topic }
}

// HandlerOption configures one handler.
type HandlerOption func(*handlerConfig)

type handlerConfig struct {
	name        string
	concurrency int
	timeout     time.Duration
	retry       RetryPolicy
	start       driver.Start
	unordered   bool
	requires    driver.Capabilities
	policy      Policy
}

// Named gives a handler a name of its own and with it a consumer group of its
// own, "<service>.<name>". It is needed for a second handler of one topic; the
// first, unnamed, reads in the group "<service>".
func Named(name string) HandlerOption {
	return func(c *handlerConfig) { c.name = name }
}

// Concurrency is how many events the handler works on at a time, of different
// keys. Defaults to 16.
func Concurrency(n int) HandlerOption {
	return func(c *handlerConfig) { c.concurrency = n }
}

// Timeout bounds each call of the handler: its context ends then. A negative
// value means no bound. Defaults to 30 s.
func Timeout(d time.Duration) HandlerOption {
	return func(c *handlerConfig) { c.timeout = d }
}

// Retry sets what happens when the handler fails; see RetryPolicy.
func Retry(p RetryPolicy) HandlerOption {
	return func(c *handlerConfig) { c.retry = p }
}

// Unordered accepts that a topic with KeyBy is read from a broker that keeps no
// order per key. Without it such a service is refused at start.
func Unordered() HandlerOption {
	return func(c *handlerConfig) { c.unordered = true }
}

// Requires refuses, at start, a broker that lacks any of c: Durable for events
// that must outlive a restart, say, or a MaxPayload in bytes that it must take.
// What the options of the handler itself need is required without it.
func Requires(c driver.Capabilities) HandlerOption {
	return func(cfg *handlerConfig) { cfg.requires = c }
}

// StartNewest makes a group that has never read the topic begin with the events
// published from now on. By default it begins with the oldest one kept.
func StartNewest() HandlerOption {
	return func(c *handlerConfig) { c.start = driver.StartNewest }
}

// NewService returns a service of the given name: the name of its consumer
// group and the source of the events that it publishes.
func NewService(name string, bus *Bus, opts ...ServiceOption) *Service {
	s := &Service{
		name: name,
		bus:  bus,
		cfg: serviceConfig{
			defaults:     handlerConfig{concurrency: 16, timeout: 30 * time.Second},
			drainTimeout: 20 * time.Second,
			deadLetters:  name + ".dead-letter",
		},
		ready: make(chan struct{}),
	}
	for _, opt := range opts {
		opt(&s.cfg)
	}
	return s
}

// Subscribe has h called for every event of topic, at least once each. When h
// returns nil the event is done; an error leads to retries and in the end to
// the dead-letter topic, see RetryPolicy, Permanent and RetryAfter. What is
// wrong with the arguments is reported by Service.Validate and Service.Run.
func Subscribe[T any](s *Service, topic Topic[T], h func(context.Context, Event[T]) error, opts ...HandlerOption) {
	if topic.codec == nil {
		s.errs = append(s.errs, errors.New("the zero Topic can't be subscribed to; make one with NewTopic"))
		return
	}
	var call message.NoPublishHandlerFunc
	if h != nil {
		call = func(m *message.Message) error {
			e, err := decodeFor(s, topic, m)
			if err != nil {
				return err
			}
			return h(m.Context(), e)
		}
	}
	s.handle(topic.name, call, opts).keyed = topic.key != nil
}

// decodeFor spares reading the envelope again where no middleware can have
// changed it.
func decodeFor[T any](s *Service, topic Topic[T], m *message.Message) (Event[T], error) {
	if c, ok := m.Context().(*handling); ok && len(s.middleware) == 0 {
		return topic.decode(m, c.cause.envelope, c.delivery)
	}
	return topic.Decode(m)
}

// Handle is Subscribe for untyped messages. The message belongs to h; its
// context is the handler's, to publish with; its Ack and Nack have no effect.
func (s *Service) Handle(topic string, h message.NoPublishHandlerFunc, opts ...HandlerOption) {
	if h == nil {
		s.handle(topic, nil, opts)
		return
	}
	s.handle(topic, func(m *message.Message) error {
		m.Payload = bytes.Clone(m.Payload)
		return h(m)
	}, opts)
}

func (s *Service) handle(topic string, call message.NoPublishHandlerFunc, opts []HandlerOption) *handler {
	c := s.cfg.defaults
	for _, opt := range opts {
		opt(&c)
	}
	group := s.name
	if c.name != "" {
		group += "." + c.name
	}
	h := &handler{service: s, topic: topic, group: group, cfg: c, call: call}
	s.handlers = append(s.handlers, h)
	return h
}

// Use wraps every handler in Watermill middlewares, the first one outermost.
// They run once per try, inside the recovery of panics, the retries and the
// timeout; so a middleware needs none of its own. It may replace a message's
// fields and metadata but not write into its payload, which may be shared.
func (s *Service) Use(m ...message.HandlerMiddleware) {
	s.middleware = append(s.middleware, m...)
}

// Add has runners start with the service's handlers and stop after them, so
// that a relay still moves what the last handlers wrote.
func (s *Service) Add(r ...Runner) { s.runners = append(s.runners, r...) }

// Name returns the service's name.
func (s *Service) Name() string { return s.name }

// Ready is closed when Run has joined all consumer groups: events published
// from then on will be handled. It stays open if Run fails before.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Validate returns everything that is wrong with the service's declaration or
// beyond the broker's capabilities. Run calls it.
func (s *Service) Validate() error {
	errs := append([]error(nil), s.errs...)
	report := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	report(driver.CheckGroup(s.name))
	report(driver.CheckTopic(s.cfg.deadLetters))
	if s.bus == nil {
		report(errors.New("the bus is nil"))
	}
	if s.cfg.drainTimeout < 0 {
		report(fmt.Errorf("DrainTimeout must not be negative, got %v", s.cfg.drainTimeout))
	}
	for i, r := range s.runners {
		if r == nil {
			report(fmt.Errorf("runner %d is nil", i+1))
		}
	}
	for i, m := range s.middleware {
		if m == nil {
			report(fmt.Errorf("middleware %d is nil", i+1))
		}
	}
	taken := map[string]bool{}
	for _, h := range s.handlers {
		if id := h.topic + "\x00" + h.group; taken[id] {
			report(fmt.Errorf("%s: the service has two handlers of this name for the topic; give one another name with eventbus.Named", h))
		} else {
			taken[id] = true
		}
		report(h.validate())
	}
	if len(s.handlers) == 0 && len(s.runners) == 0 && len(errs) == 0 {
		report(errors.New("there is no handler and no runner"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("eventbus: service %q: %w", s.name, err)
	}
	return nil
}

func (s *Service) log() *slog.Logger {
	l := s.cfg.logger
	if l == nil {
		l = slog.Default()
	}
	return l.With("service", s.name)
}
