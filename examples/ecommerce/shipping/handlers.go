package shipping

import (
	"context"
	"database/sql"
	"time"

	"github.com/millrace-go/millrace/eventbus"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/faults"
)

// How long a parcel travels. A real carrier takes days; the shop would not
// notice, since a parcel on its way is a row in a database and no timer in
// memory.
const (
	shortestWay = 200 * time.Millisecond
	longestWay  = 500 * time.Millisecond
)

// ship hands a parcel to the carrier and notes when it will arrive.
func (s *Service) ship(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.OrderDispatched]) error {
	p := events.Parcel{ParcelID: "parcel-" + e.Data.Order.ID, Order: e.Data.Order, At: time.Now().UTC()}
	if err := insertParcel(ctx, tx, p); err != nil {
		return err
	}
	if err := events.ParcelsShipped.Publish(ctx, s.box.In(tx), p); err != nil {
		return err
	}
	return events.ParcelsDue.Publish(ctx, s.box.In(tx), p, eventbus.WithDelay(s.way(p)))
}

// deliver is called when a parcel is due.
func (s *Service) deliver(ctx context.Context, tx *sql.Tx, e eventbus.Event[events.Parcel]) error {
	p := e.Data
	p.At = time.Now().UTC()
	if err := markDelivered(ctx, tx, p); err != nil {
		return err
	}
	return events.ParcelsDelivered.Publish(ctx, s.box.In(tx), p)
}

// way is how long a parcel travels.
func (s *Service) way(p events.Parcel) time.Duration {
	return shortestWay + time.Duration(faults.Share(s.seed, p.ParcelID)*float64(longestWay-shortestWay))
}
