package saga_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

// Trip is the state of a saga that books a trip.
type Trip struct{ Flight, Hotel, Car string }

// book stands for a client of a booking service. The key makes repetitions safe.
func book(what string) func(ctx context.Context, t Trip) (string, error) {
	return func(ctx context.Context, _ Trip) (string, error) {
		if what == "car" {
			return "", eventbus.Permanent(errors.New("no car left"))
		}
		fmt.Println("book", what, "with key", saga.KeyOf(ctx))
		return what + "-1", nil
	}
}

func cancel(what string) saga.Action[Trip] {
	return saga.Call(func(context.Context, Trip) (struct{}, error) {
		fmt.Println("cancel", what)
		return struct{}{}, nil
	}, nil)
}

var bookTrip = saga.Definition[Trip]{
	Name: "trip", Version: 1,
	Steps: []saga.Node[Trip]{
		saga.Step[Trip]{Name: "flight", Do: saga.Call(book("flight"), func(t *Trip, id string) { t.Flight = id }), Timeout: time.Minute, Compensate: cancel("flight")},
		saga.Step[Trip]{Name: "hotel", Do: saga.Call(book("hotel"), func(t *Trip, id string) { t.Hotel = id }), Timeout: time.Minute, Compensate: cancel("hotel")},
		saga.Step[Trip]{Name: "car", Do: saga.Call(book("car"), func(t *Trip, id string) { t.Car = id }), Timeout: time.Minute, Compensate: cancel("car")},
	},
}

// A trip is booked in three steps. There is no car, so hotel and flight are
// cancelled.
func Example_compensation() {
	ctx := context.Background()
	bus, err := eventbus.Open(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer bus.Close()
	orchestrator, err := saga.NewOrchestrator(saga.NewMemoryStore(bus), saga.Config{}, bookTrip)
	if err != nil {
		panic(err)
	}
	trip, err := saga.Execute(ctx, orchestrator, bookTrip, "trip-7", Trip{})
	if err != nil {
		panic(err)
	}
	fmt.Println(trip.Status, "-", trip.Error)
	// Output:
	// book flight with key trip/trip-7/flight
	// book hotel with key trip/trip-7/hotel
	// cancel hotel
	// cancel flight
	// compensated - step "car": no car left
}
