package saga_test

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

// Conference is the state of a saga that books a trip within another one.
type Conference struct{ Ticket, Hotel string }

// A saga runs another one as a step: it waits for its end, takes its result, and
// has it compensated should a later step fail.
func ExampleChild() {
	travel := saga.Definition[Trip]{
		Name: "travel", Version: 1,
		Steps: []saga.Node[Trip]{saga.Step[Trip]{
			Name: "hotel", Do: saga.Call(func(context.Context, Trip) (string, error) { return "Grand Hotel", nil }, func(t *Trip, h string) { t.Hotel = h }),
			Timeout: time.Minute, Compensate: cancel("hotel"),
		}},
	}
	attend := saga.Definition[Conference]{
		Name: "attend", Version: 1,
		Steps: []saga.Node[Conference]{saga.Step[Conference]{
			Name: "travel", Do: saga.Child(travel, func(Conference) Trip { return Trip{} }),
			Success: saga.Succeeded(travel, func(c *Conference, t Trip) { c.Hotel = t.Hotel }), Timeout: time.Hour,
		}},
	}
	ctx, stop := context.WithCancel(context.Background())
	bus, err := eventbus.Open(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer bus.Close()
	finished := make(chan saga.Instance, 1)
	observer := func(o saga.Observation) {
		if o.Instance.Saga == attend.Name && o.Instance.Status.Ended() {
			finished <- o.Instance
		}
	}
	orchestrator, err := saga.NewOrchestrator(saga.NewMemoryStore(bus), saga.Config{Observer: observer}, travel, attend)
	if err != nil {
		panic(err)
	}
	svc := eventbus.NewService("office", bus)
	orchestrator.Attach(svc)
	ended := make(chan error)
	go func() { ended <- svc.Run(ctx) }()
	<-svc.Ready()

	if err := saga.Start(ctx, bus, attend, "gophercon", Conference{}); err != nil {
		panic(err)
	}
	i := <-finished
	conference, err := saga.StateOf(attend, i)
	if err != nil {
		panic(err)
	}
	fmt.Println(i.Status, conference.Hotel)
	stop()
	if err := <-ended; err != nil {
		panic(err)
	}
	// Output: completed Grand Hotel
}
