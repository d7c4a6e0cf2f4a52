package saga_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus"
	"github.com/millrace-go/millrace/saga"
)

type order struct {
	Total   int
	Stock   bool
	Payment string
}

type (
	orderPlaced struct {
		OrderID string
		Total   int
	}
	reserveStock  struct{ OrderID string }
	stockReserved struct{ OrderID string }
	outOfStock    struct{ OrderID string }
	releaseStock  struct{ OrderID string }
)

var (
	placed   = eventbus.NewTopic[orderPlaced]("orders.placed")
	reserve  = eventbus.NewTopic[reserveStock]("stock.reserve")
	reserved = eventbus.NewTopic[stockReserved]("stock.reserved")
	out      = eventbus.NewTopic[outOfStock]("stock.out")
	release  = eventbus.NewTopic[releaseStock]("stock.release")
)

var errDeclined = eventbus.Permanent(errors.New("card declined"))

func fulfilment(charge func(ctx context.Context, o order) (string, error)) saga.Definition[order] {
	return saga.Definition[order]{
		Name: "fulfilment", Version: 1,
		StartedBy: saga.On(placed, func(e orderPlaced) string { return e.OrderID }, func(o *order, e orderPlaced) { o.Total = e.Total }),
		Steps: []saga.Node[order]{
			saga.Step[order]{
				Name:       "reserve stock",
				Do:         saga.Send(reserve, func(o order) reserveStock { return reserveStock{} }),
				Success:    saga.On(reserved, func(e stockReserved) string { return e.OrderID }, func(o *order, _ stockReserved) { o.Stock = true }),
				Failure:    saga.On[order](out, func(e outOfStock) string { return e.OrderID }, nil),
				Timeout:    time.Minute,
				Compensate: saga.Send(release, func(o order) releaseStock { return releaseStock{} }),
			},
			saga.Step[order]{
				Name:       "take payment",
				Do:         saga.Call(charge, func(o *order, id string) { o.Payment = id }),
				Timeout:    time.Minute,
				Retry:      saga.Retry{Attempts: 3},
				Compensate: saga.NotNeeded[order]("the last step"),
			},
		},
	}
}

func TestSteps(t *testing.T) {
	for name, tt := range map[string]struct {
		charge func(ctx context.Context, o order) (string, error)
		stock  bool
		silent bool
		want   saga.Status
		undone int
	}{
		"completed":     {charge: func(context.Context, order) (string, error) { return "p1", nil }, stock: true, want: saga.Completed},
		"out of stock":  {want: saga.Compensated},
		"declined":      {charge: func(context.Context, order) (string, error) { return "", errDeclined }, stock: true, want: saga.Compensated, undone: 1},
		"no answer":     {silent: true, want: saga.Compensated, undone: 1},
		"provider down": {charge: func(context.Context, order) (string, error) { return "", errors.New("down") }, stock: true, want: saga.Compensated, undone: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, fulfilment(tt.charge))
				undone := 0
				on(r, reserve, func(ctx context.Context, id string, _ eventbus.Event[reserveStock]) error {
					switch {
					case tt.silent:
						return nil
					case tt.stock:
						return reserved.Publish(ctx, r.h.Bus(), stockReserved{id})
					}
					return out.Publish(ctx, r.h.Bus(), outOfStock{id})
				})
				on(r, release, func(context.Context, string, eventbus.Event[releaseStock]) error { undone++; return nil })
				r.start()
				require.NoError(t, placed.Publish(t.Context(), r.h.Bus(), orderPlaced{"1", 7}))
				r.pass(time.Hour)
				r.requireStatus(tt.want, "fulfilment", "1")
				require.Equal(t, tt.undone, undone)
			})
		})
	}
}
