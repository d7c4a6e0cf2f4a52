// Package demo is a crowd of customers: it places orders over HTTP and watches
// what becomes of them.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/millrace-go/millrace/examples/ecommerce/audit"
	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// Config says what to do to which shop.
type Config struct {
	// URL of the shop.
	URL string
	// Orders to place.
	Orders int
	// Seed of what the customers buy.
	Seed uint64
	// Patience is how long to wait while nothing at all changes.
	Patience time.Duration
}

// interval between looks at the orders.
const interval = 200 * time.Millisecond

// Run places the orders and waits until all of them, and the shop's books, are
// settled. It returns an error unless every order was delivered or cancelled and
// the audit found nothing.
func Run(ctx context.Context, to io.Writer, cfg Config) error {
	out := printer{to}
	began := time.Now()
	shop := newClient(cfg.URL)
	defer shop.close()
	out.printf("Placing %d orders at %s, %d customers at a time\n\n", cfg.Orders, cfg.URL, customers)
	crowd := newCrowd(shop, cfg)
	placing, stop := context.WithCancel(ctx)
	go crowd.place(placing)
	orders, report, err := watch(ctx, out, shop, crowd, cfg)
	stop()
	<-crowd.done
	if err = errors.Join(crowd.err(), err); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	printTimelines(ctx, out, shop, orders)
	printSummary(out, orders, time.Since(began))
	printAudit(out, report)
	if !report.Consistent {
		return errors.New("demo: the audit found violations")
	}
	return nil
}

// watch shows progress until every order is final and the audit says that
// nothing is unsettled any more.
func watch(ctx context.Context, out printer, shop client, crowd *crowd, cfg Config) ([]order, audit.Report, error) {
	var orders []order
	var report audit.Report
	last, lastChange := "", time.Now()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		unfinished, err := look(ctx, shop, orders)
		if err == nil && unfinished == 0 && len(orders) == cfg.Orders {
			if report, err = shop.audit(ctx); err == nil && (report.Unsettled == 0 || !report.Consistent) {
				return orders, report, nil
			}
		}
		if err = errors.Join(crowd.err(), err); err != nil {
			return nil, report, err
		}
		if now := progress(orders, report); now != last {
			out.printf("%s\n", now)
			last, lastChange = now, time.Now()
		}
		if time.Since(lastChange) > cfg.Patience {
			return nil, report, stuck(orders, report, cfg.Patience)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, report, fmt.Errorf("interrupted with %d orders unfinished; they will be finished when the shop runs again", unfinished)
		}
		for _, id := range crowd.placedSince(len(orders)) {
			orders = append(orders, order{Order: events.Order{ID: id}})
		}
	}
}

// look brings the orders that are not final up to date: most with one request,
// those that are no longer among the newest with one each.
func look(ctx context.Context, shop client, orders []order) (unfinished int, err error) {
	newest, err := shop.newest(ctx, len(orders))
	if err != nil {
		return 0, err
	}
	for i, o := range orders {
		if o.Status.Final() {
			continue
		}
		now, ok := newest[o.ID]
		if !ok {
			if now, err = shop.order(ctx, o.ID); err != nil {
				return 0, err
			}
		}
		if orders[i] = now; !now.Status.Final() {
			unfinished++
		}
	}
	return unfinished, nil
}

// stuck says which orders did not get on.
func stuck(orders []order, report audit.Report, patience time.Duration) error {
	err := fmt.Errorf("nothing changed for %v", patience)
	for _, o := range orders {
		if !o.Status.Final() {
			err = errors.Join(err, fmt.Errorf("order %s is %s", o.ID, o.Status))
		}
	}
	if report.Unsettled > 0 {
		err = errors.Join(err, fmt.Errorf("the audit calls %d orders unsettled: their end has not reached the storefront or the e-mails", report.Unsettled))
	}
	return err
}

func count(orders []order) map[events.Status]int {
	n := map[events.Status]int{}
	for _, o := range orders {
		n[o.Status]++
	}
	return n
}
