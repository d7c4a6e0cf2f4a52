package saga_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

// Loan is the state of a saga that asks banks for quotes.
type Loan struct{ Best float64 }

func askBank(name string, rate float64, err error) saga.Node[Loan] {
	return saga.Step[Loan]{
		Name:    name,
		Do:      saga.Call(func(context.Context, Loan) (float64, error) { return rate, err }, takeBetter),
		Timeout: time.Minute, Compensate: saga.NotNeeded[Loan]("a quote binds nobody"),
	}
}

func takeBetter(l *Loan, rate float64) {
	if l.Best == 0 || rate < l.Best {
		l.Best = rate
	}
}

// Four banks are asked side by side; two quotes are enough.
func ExampleParallel() {
	down := eventbus.Permanent(errors.New("closed today"))
	quotes := saga.Definition[Loan]{
		Name: "loan", Version: 1,
		Steps: []saga.Node[Loan]{
			saga.Parallel[Loan]{Name: "quotes", Need: 2, Branches: []saga.Node[Loan]{
				askBank("north", 4.1, nil), askBank("south", 0, down), askBank("east", 3.9, nil), askBank("west", 0, down),
			}},
		},
	}
	ctx := context.Background()
	bus, err := eventbus.Open(ctx, "memory:")
	if err != nil {
		panic(err)
	}
	defer bus.Close()
	orchestrator, err := saga.NewOrchestrator(saga.NewMemoryStore(bus), saga.Config{}, quotes)
	if err != nil {
		panic(err)
	}
	i, err := saga.Execute(ctx, orchestrator, quotes, "loan-1", Loan{})
	if err != nil {
		panic(err)
	}
	loan, err := saga.StateOf(quotes, i)
	if err != nil {
		panic(err)
	}
	fmt.Println(i.Status, loan.Best)
	// Output: completed 3.9
}

// A definition that forgets something is refused when the program starts.
func ExampleValidate() {
	err := saga.Validate(saga.Definition[Loan]{
		Name: "loan", Version: 1,
		Steps: []saga.Node[Loan]{saga.Step[Loan]{
			Name: "transfer", Do: saga.Call(func(context.Context, Loan) (int, error) { return 0, nil }, nil),
		}},
	})
	fmt.Println(err)
	// Output:
	// saga "loan" version 1: step "transfer": it has no Timeout; NoTimeout says that it may wait for ever
	// step "transfer": it has no Compensate; NotNeeded says that there is nothing to undo
}

// Diagrams are drawn from the definition.
func ExampleMermaid() {
	fmt.Println(saga.Mermaid(bookTrip))
	// Output:
	// ---
	// title: trip v1
	// ---
	// flowchart TD
	//   n0(("start"))
	//   n1["flight<br>calls<br>undo: calls"]
	//   n2["hotel<br>calls<br>undo: calls"]
	//   n3["car<br>calls<br>undo: calls"]
	//   n4((("completed")))
	//   n0 --> n1
	//   n1 --> n2
	//   n2 --> n3
	//   n3 --> n4
}
