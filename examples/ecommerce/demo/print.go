package demo

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/millrace-go/millrace/examples/ecommerce/audit"
	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

var allStatuses = []events.Status{events.Pending, events.Paid, events.Confirmed, events.Dispatched, events.Shipped, events.Delivered, events.Cancelled}

// printer prints; errors of a terminal are nobody's concern here.
type printer struct{ out io.Writer }

func (p printer) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, format, args...)
}

// table returns a printer that aligns columns, and what prints them.
func (p printer) table() (columns printer, flush func()) {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	return printer{w}, func() { _ = w.Flush() }
}

// progress is one line about all orders.
func progress(orders []order, report audit.Report) string {
	n, parts := count(orders), []string{}
	for _, s := range allStatuses {
		parts = append(parts, fmt.Sprintf("%s %3d", s, n[s]))
	}
	line := "  " + strings.Join(parts, "  ")
	if report.Unsettled > 0 {
		line += fmt.Sprintf("  (%d to settle)", report.Unsettled)
	}
	return line
}

// printTimelines shows the life of one delivered and one cancelled order.
func printTimelines(ctx context.Context, out printer, shop client, orders []order) {
	for _, status := range []events.Status{events.Delivered, events.Cancelled} {
		i := slices.IndexFunc(orders, func(o order) bool { return o.Status == status })
		if i < 0 {
			out.printf("\nNo order was %s.\n", status)
			continue
		}
		printTimeline(ctx, out, shop, orders[i])
	}
}

func printTimeline(ctx context.Context, out printer, shop client, o order) {
	out.printf("\nOrder %s of %s, %d.%02d for %s\n", o.ID, o.CustomerID, o.Total/100, o.Total%100, goods(o))
	mails := map[events.Status]string{}
	sent, err := shop.emails(ctx, o.ID)
	if err != nil {
		out.printf("  its e-mails can't be read: %v\n", err)
	}
	for _, m := range sent {
		mails[m.Status] = m.Subject
	}
	columns, flush := out.table()
	for _, c := range o.History {
		status := string(c.Status)
		if c.Status == events.Cancelled {
			status += ": " + o.Reason
		}
		columns.printf("  +%v\t%s\te-mail: %s\n", c.At.Sub(o.PlacedAt).Round(time.Millisecond), status, mails[c.Status])
	}
	flush()
}

func goods(o order) string {
	var parts []string
	for _, l := range o.Lines {
		parts = append(parts, fmt.Sprintf("%d × %s", l.Quantity, l.Name))
	}
	return strings.Join(parts, ", ")
}

// printSummary counts how the orders ended.
func printSummary(out printer, orders []order, took time.Duration) {
	ends := map[string]int{}
	var longest time.Duration
	for _, o := range orders {
		end := string(o.Status)
		if o.Reason != "" {
			end += ": " + o.Reason
		}
		ends[end]++
		longest = max(longest, o.History[len(o.History)-1].At.Sub(o.PlacedAt))
	}
	out.printf("\n%d orders in %v, the slowest took %v\n", len(orders), took.Round(time.Millisecond), longest.Round(time.Millisecond))
	for _, end := range slices.Sorted(maps.Keys(ends)) {
		out.printf("  %5d  %s\n", ends[end], end)
	}
}

func printAudit(out printer, r audit.Report) {
	out.printf("\nAudit of all %d orders in the six databases\n", r.Accepted)
	columns, flush := out.table()
	columns.printf("  payments\t%d confirmed, %d declined, %d refunded, %d.%02d held\n", r.Payments.Confirmed, r.Payments.Declined, r.Payments.Refunded, r.Payments.Held/100, r.Payments.Held%100)
	columns.printf("  e-mails\t%d sent for %d status changes\n", r.Emails.Sent, r.Emails.Expected)
	for _, sku := range slices.Sorted(maps.Keys(r.Stock)) {
		s := r.Stock[sku]
		columns.printf("  %s\t%d sold + %d in stock = %d\n", sku, s.Sold, s.Stock, s.Initial)
	}
	flush()
	for _, v := range r.Violations {
		out.printf("  VIOLATION %s\n", v)
	}
	out.printf("  consistent: %v\n", r.Consistent)
}
