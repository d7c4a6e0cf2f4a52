package saga_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/eventbus/eventbustest"
	"github.com/millrace-go/millrace/saga"
)

// Expense is the state of a saga that waits for a person.
type Expense struct {
	Amount   int
	Approver string
	Paid     bool
}

// Decision is the data of the signal.
type Decision struct{ By string }

var expenses = saga.Definition[Expense]{
	Name: "expense", Version: 1,
	Steps: []saga.Node[Expense]{
		saga.Step[Expense]{
			Name:    "approval",
			Success: saga.Signal("approved", func(e *Expense, d Decision) { e.Approver = d.By }),
			Failure: saga.Signal[Expense, Decision]("rejected", nil),
			Timeout: 7 * 24 * time.Hour,
		},
		saga.Step[Expense]{
			Name:    "payment",
			Do:      saga.Call(func(context.Context, Expense) (bool, error) { return true, nil }, func(e *Expense, paid bool) { e.Paid = paid }),
			Timeout: time.Minute, Compensate: saga.NotNeeded[Expense]("the last step"),
		},
	},
}

// A person has seven days to approve, which take no time in a test.
func TestExampleApprovalWithinSevenDays(t *testing.T) {
	for name, tt := range map[string]struct {
		after  time.Duration
		signal string
		want   saga.Status
	}{
		"approved": {6 * 24 * time.Hour, "approved", saga.Completed},
		"rejected": {time.Hour, "rejected", saga.Compensated},
		"too late": {8 * 24 * time.Hour, "approved", saga.Compensated},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := eventbustest.New(t)
				orchestrator, err := saga.NewOrchestrator(saga.NewMemoryStore(h.Bus()), saga.Config{}, expenses)
				require.NoError(t, err)
				svc := eventbus.NewService("finance", h.Bus())
				orchestrator.Attach(svc)
				h.Start(svc)

				_, err = saga.Execute(t.Context(), orchestrator, expenses, "e1", Expense{Amount: 120})
				require.NoError(t, err)
				time.Sleep(tt.after) // virtual
				synctest.Wait()
				require.NoError(t, orchestrator.Signal(t.Context(), "expense", "e1", tt.signal, Decision{"Ada"}))

				i, err := orchestrator.Get(t.Context(), "expense", "e1")
				require.NoError(t, err)
				require.Equal(t, tt.want, i.Status)
				e, err := saga.StateOf(expenses, i)
				require.NoError(t, err)
				require.Equal(t, tt.want == saga.Completed, e.Paid)
			})
		})
	}
}
