package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	_ "github.com/millrace-go/millrace/eventbus/amqpbus"  // amqp: URLs
	_ "github.com/millrace-go/millrace/eventbus/kafkabus" // kafka: URLs
	_ "github.com/millrace-go/millrace/eventbus/sqlbus"   // sqlite:, postgres: and mysql: URLs

	"github.com/millrace-go/millrace/examples/ecommerce/email"
	"github.com/millrace-go/millrace/examples/ecommerce/faults"
	"github.com/millrace-go/millrace/examples/ecommerce/order"
	"github.com/millrace-go/millrace/examples/ecommerce/payment"
	"github.com/millrace-go/millrace/examples/ecommerce/platform"
	"github.com/millrace-go/millrace/examples/ecommerce/shipping"
	"github.com/millrace-go/millrace/examples/ecommerce/storefront"
	"github.com/millrace-go/millrace/examples/ecommerce/warehouse"
)

// service is what the shop needs to know of each of its services.
type service interface {
	Name() string
	Run(ctx context.Context) error
	Ready() <-chan struct{}
	Close() error
}

// open makes each service by its name.
var open = map[string]func(context.Context, platform.Env) (service, error){
	storefront.Name: func(ctx context.Context, env platform.Env) (service, error) { return storefront.New(ctx, env) },
	order.Name:      func(ctx context.Context, env platform.Env) (service, error) { return order.New(ctx, env) },
	payment.Name:    func(ctx context.Context, env platform.Env) (service, error) { return payment.New(ctx, env) },
	warehouse.Name:  func(ctx context.Context, env platform.Env) (service, error) { return warehouse.New(ctx, env) },
	shipping.Name:   func(ctx context.Context, env platform.Env) (service, error) { return shipping.New(ctx, env) },
	email.Name:      func(ctx context.Context, env platform.Env) (service, error) { return email.New(ctx, env) },
}

// shop is the services of one process, their bus, and an HTTP server.
type shop struct {
	cfg      config
	bus      *eventbus.Bus
	services []service
	front    *storefront.Service // nil if it runs elsewhere
	listener net.Listener
	server   *http.Server
}

// openShop opens everything and starts nothing.
func openShop(ctx context.Context, cfg config) (*shop, error) {
	s := &shop{cfg: cfg}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *shop) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(s.cfg.data, 0o755); err != nil {
		return fmt.Errorf("-data: %w", err)
	}
	if s.listener, err = listen(ctx, s.cfg); err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	if s.bus, err = eventbus.Open(ctx, s.cfg.bus); err != nil {
		return fmt.Errorf("-bus: %w", err)
	}
	for _, name := range s.cfg.services {
		svc, err := open[name](ctx, platform.Env{
			Bus:     s.bus,
			Dir:     s.cfg.data,
			Decline: s.cfg.decline,
			Seed:    s.cfg.seed,
			Faults:  faults.New(name, s.cfg.seed, s.cfg.fail, s.cfg.latency),
		})
		if err != nil {
			return err
		}
		s.services = append(s.services, svc)
		if front, ok := svc.(*storefront.Service); ok {
			s.front = front
		}
	}
	s.server = &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       time.Minute,
	}
	if s.front != nil {
		s.server.RegisterOnShutdown(s.front.EndStreams)
	}
	return nil
}

// listen takes any free port where the usual one was not asked for and is taken.
func listen(ctx context.Context, cfg config) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.addr)
	if err != nil && cfg.anyPort {
		return lc.Listen(ctx, "tcp", "127.0.0.1:0")
	}
	return l, err
}

func (s *shop) url() string { return "http://" + s.listener.Addr().String() }

// run runs everything until ctx ends, something fails, or play, if there is
// one, returns. Then it stops in this order: no new orders, then the services,
// each of which finishes what it is doing.
func (s *shop) run(ctx context.Context, play func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var errs errorList
	var serving, running sync.WaitGroup
	serving.Go(func() {
		if err := s.server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			errs.add(fmt.Errorf("HTTP server: %w", err))
			stop()
		}
	})
	services, stopServices := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServices()
	for _, svc := range s.services {
		running.Go(func() {
			errs.add(svc.Run(services))
			stop()
		})
	}
	if s.started(ctx) {
		slog.Info("ecommerce: the shop is open", "url", s.url(), "services", s.cfg.services, "data", s.cfg.data, "bus", s.bus.String())
		if play != nil {
			errs.add(play(ctx))
			stop()
		}
	}
	<-ctx.Done()
	errs.add(s.stopServing())
	serving.Wait()
	stopServices()
	running.Wait()
	return errs.join()
}

// started waits until all services are ready; false means that ctx ended first.
func (s *shop) started(ctx context.Context) bool {
	for _, svc := range s.services {
		select {
		case <-svc.Ready():
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// stopServing lets requests finish for a while.
func (s *shop) stopServing() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("HTTP server: requests were cut off: %w", err), s.server.Close())
	}
	return nil
}

// close closes what open opened, the other way round.
func (s *shop) close() error {
	var errs errorList
	for _, svc := range slices.Backward(s.services) {
		errs.add(svc.Close())
	}
	if s.bus != nil {
		errs.add(s.bus.Close())
	}
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs.add(err)
		}
	}
	return errs.join()
}

// errorList collects errors of several goroutines.
type errorList struct {
	mu   sync.Mutex
	errs []error
}

func (l *errorList) add(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errs = append(l.errs, err)
}

func (l *errorList) join() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}
