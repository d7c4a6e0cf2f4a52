package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/millrace-go/millrace/benchmarks/internal/rounds"
	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/membus"
	"github.com/millrace-go/millrace/saga"
)

// serving is the table of what a saga costs within a service, whose relay runs in
// the same process.
func (b *bench) serving(workers int) rounds.Table {
	t := b.table(fmt.Sprintf("within a service, %d concurrent", workers), workers, []variant{
		{pgxName + ", sagas alone", func(int) error { return b.pgx.execute(b.ctx) }},
	})
	t.Variants = append(t.Variants,
		b.served("beside the relay and the orchestrator's handlers", workers, saga.Config{}),
		b.served("the same, looking for what is to be recovered every 40 to 50 ms", workers, saga.Config{RecoverAfter: 200 * time.Millisecond}),
	)
	return t
}

// served runs sagas while a service runs.
func (b *bench) served(name string, workers int, c saga.Config) rounds.Variant {
	s := *b.pgx
	var stop func() error
	return rounds.Variant{
		Name: name,
		Prepare: func() (err error) {
			if err := errors.Join(b.rest(), s.orchestrate(c)); err != nil {
				return err
			}
			stop, err = s.serve(b.ctx, nil)
			return err
		},
		Run: func() (rounds.Sample, error) {
			start := time.Now()
			sample, err := b.together(workers, perRound(workers), func(int) error { return s.execute(b.ctx) })
			sample.Took = time.Since(start)
			return sample, errors.Join(err, stop())
		},
	}
}

// serve runs the orchestrator and the relay as a service until stop is called.
// tap, if set, stands between the relay and the bus.
func (s *ours) serve(ctx context.Context, tap func(message.Publisher) message.Publisher) (stop func() error, err error) {
	broker, err := membus.New(membus.Config{Logger: silent})
	if err != nil {
		return nil, err
	}
	bus, err := eventbus.New(broker)
	if err != nil {
		return nil, err
	}
	svc := eventbus.NewService("shop", bus, eventbus.Logger(silent), eventbus.Defaults(eventbus.Concurrency(128)))
	var to message.Publisher = bus
	if tap != nil {
		to = tap(bus)
	}
	relay := s.relay(to)
	s.orchestrator.Attach(svc)
	svc.Add(relay)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	stop = func() error {
		cancel()
		return errors.Join(<-ended, bus.Close())
	}
	<-svc.Ready()
	for start := time.Now(); !relay.Active(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			return nil, errors.Join(errors.New("the relay has not become active"), stop())
		}
	}
	return stop, nil
}
