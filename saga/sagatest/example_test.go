package sagatest_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
	"github.com/millrace-go/millrace/saga/sagatest"
)

// A saga of one step: a table is booked, and the booking taken back if nobody
// confirms it within a day.

type Booking struct{ Guest string }

type (
	BookTable   struct{ Guest string }
	TableBooked struct{ ID string }
)

var (
	BookTables   = eventbus.NewTopic[BookTable]("tables.book")
	UnbookTables = eventbus.NewTopic[BookTable]("tables.unbook")
	TablesBooked = eventbus.NewTopic[TableBooked]("tables.booked")
)

var Dinner = saga.Definition[Booking]{
	Name: "dinner", Version: 1,
	Steps: []saga.Node[Booking]{
		saga.Step[Booking]{
			Name:       "book",
			Do:         saga.Send(BookTables, func(b Booking) BookTable { return BookTable(b) }),
			Success:    saga.On[Booking](TablesBooked, func(e TableBooked) string { return e.ID }, nil),
			Timeout:    time.Minute,
			Compensate: saga.Send(UnbookTables, func(b Booking) BookTable { return BookTable(b) }),
		},
		saga.Step[Booking]{Name: "confirm", Success: saga.Signal[Booking, string]("confirmed", nil), Timeout: 24 * time.Hour},
	},
}

// In a test, t is what go test gives.
func ExampleNew() {
	synctest.Test(new(testing.T), func(t *testing.T) {
		h := sagatest.New(t, Dinner)
		sagatest.Answer(h, BookTables, TablesBooked, func(BookTable) TableBooked { return TableBooked{"7"} })

		sagatest.Start(h, Dinner, "7", Booking{"Ada"})
		h.RequireState("7", "confirm: waiting")
		h.Advance(24 * time.Hour)
		h.RequireCompensated("7", "book")
		sagatest.RequireSent(h, UnbookTables, BookTable{"Ada"})
		fmt.Print(h.History("7"))
	})
	// Output:
	//    1. after 0s: start => running: book: waiting, sends tables.book, saga.dinner.control
	//    2. after 0s: tables.booked => running: confirm: waiting
	//    3. after 1m0s: wake => running: confirm: waiting, sends saga.dinner.control
	//    4. after 24h0m0s: wake => compensated, sends tables.unbook
	//       because step "confirm": no answer within 24h0m0s
}

// restaurant books a table whenever it is told to.
func restaurant(w *sagatest.World) {
	p := w.Participant("restaurant")
	booked := func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[BookTable]) error {
		tx.Set("tables of "+e.Data.Guest, sagatest.Get[int](tx, "tables of "+e.Data.Guest)+1)
		return TablesBooked.Publish(ctx, tx, TableBooked{e.Metadata[saga.MetadataInstance]}, saga.Answering(e.Metadata))
	}
	sagatest.HandleOnce(p, BookTables, booked)
	sagatest.HandleOnce(p, UnbookTables, func(_ context.Context, tx *sagatest.Tx, e eventbus.Event[BookTable]) error {
		tx.Delete("tables of " + e.Data.Guest)
		return nil
	})
}

// A participant with an inbox and without a barrier. Tests call Explore, which
// fails them; Check returns what it finds.
func ExampleCheck() {
	report := sagatest.Check(sagatest.Exploration{
		Setup: func(w *sagatest.World) {
			w.Orchestrate(Dinner)
			restaurant(w)
			_ = saga.Start(context.Background(), w, Dinner, "7", Booking{"Ada"})
		},
		Invariant: func(w *sagatest.World) error {
			i, _ := w.Instance("7")
			if tables := sagatest.Get[int](w.Participant("restaurant"), "tables of Ada"); i.Status == saga.Compensated && tables > 0 {
				return fmt.Errorf("nobody will come, and %d table is booked", tables)
			}
			return nil
		},
	})
	fmt.Println(report)
	// Output:
	// sagatest: 19 runs, 42 choice points, 29 states
	// FAILED: nobody will come, and 1 table is booked
	// The run, in which one thing went wrong:
	//   1. at the beginning
	//     sent: saga.dinner.control
	//   2. saga.dinner.control {"id":"7","kind":"start","data":{"Guest":"Ada"}} -> saga dinner
	//     dinner "7": start => running: book: waiting
	//     sent: tables.book
	//   3. saga.dinner.control {"id":"7","kind":"wake","data":"2000-01-01T00:01:00Z"} -> saga dinner  FAULT: all else is late, 1m0s have passed
	//     dinner "7": wake => compensated (step "book": no answer within 1m0s)
	//     sent: tables.unbook
	//   4. tables.unbook {"Guest":"Ada"} -> restaurant
	//     restaurant: without tables of Ada
	//   5. tables.book {"Guest":"Ada"} -> restaurant
	//     restaurant: tables of Ada = 1
	//     sent: tables.booked
	//   6. tables.booked {"ID":"7"} -> saga dinner
	//     that changes nothing
	// replay it with Exploration.Schedule: "2=2 4=1"
}

// The same with a barrier, under every schedule with up to three faults.
func ExampleExplore() {
	exploration := sagatest.Exploration{
		Setup: func(w *sagatest.World) {
			w.Orchestrate(Dinner)
			p := w.Participant("restaurant")
			sagatest.HandleAction(p, BookTables, func(ctx context.Context, tx *sagatest.Tx, e eventbus.Event[BookTable]) error {
				tx.Set("table of "+e.Data.Guest, true)
				return TablesBooked.Publish(ctx, tx, TableBooked{e.Metadata[saga.MetadataInstance]}, saga.Answering(e.Metadata))
			}, nil)
			sagatest.HandleCompensation(p, UnbookTables, func(_ context.Context, tx *sagatest.Tx, e eventbus.Event[BookTable]) error {
				tx.Delete("table of " + e.Data.Guest)
				return nil
			}, nil)
			_ = saga.Start(context.Background(), w, Dinner, "7", Booking{"Ada"})
		},
		Invariant: func(w *sagatest.World) error {
			if booked := w.Participant("restaurant").Keys(); len(booked) > 0 {
				return fmt.Errorf("nobody will come: %v", booked)
			}
			return nil
		},
		Faults: sagatest.Faults{Total: 3},
	}
	// In a test: sagatest.Explore(t, exploration)
	report := sagatest.Check(exploration)
	fmt.Println(report.Complete, report.Failure == nil)
	// Output: true true
}
