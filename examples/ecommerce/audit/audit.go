// Package audit proves that the shop lost nothing and did nothing twice. It is
// no service: it reads the six databases as an accountant would read the books
// of six companies, and trusts no counter.
//
// Six databases can't be read at one instant. Each is read in one snapshot, in
// an order such that what one book says has its cause in a book read later. So
// most rules can be checked for orders that are still in flight too; what the
// storefront and the e-mails have yet to hear of is only counted, until it is
// older than [Grace].
package audit

import (
	"context"
	"time"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

// Grace is how long the storefront and the e-mails may lag behind an order.
const Grace = time.Minute

// Report is the outcome of an audit.
type Report struct {
	// Consistent is whether there is no violation.
	Consistent bool `json:"consistent"`
	// Violations are the broken rules, each with the order or product.
	Violations []string `json:"violations"`
	// Accepted counts the orders that the storefront accepted.
	Accepted int `json:"accepted"`
	// Unsettled counts those of them that are not final, or whose end has not
	// reached the storefront and the customer's mailbox yet.
	Unsettled int `json:"unsettled"`
	// Orders counts by status, as the storefront shows it.
	Orders   map[events.Status]int `json:"orders"`
	Payments Payments              `json:"payments"`
	Stock    map[string]Stock      `json:"stock"`
	Emails   Emails                `json:"emails"`
}

// Payments sums up the ledger.
type Payments struct {
	Confirmed int   `json:"confirmed"`
	Declined  int   `json:"declined"`
	Refunded  int   `json:"refunded"`
	Held      int64 `json:"held_cents"`
}

// Stock sums up one product.
type Stock struct {
	Initial int `json:"initial"`
	Sold    int `json:"sold"`
	Stock   int `json:"stock"`
}

// Emails sums up the notifications.
type Emails struct {
	Sent     int `json:"sent"`
	Expected int `json:"expected"` // status changes so far
}

// Run reads the databases in dir and checks them. A database that is not there
// yet counts as empty.
func Run(ctx context.Context, dir string) (Report, error) {
	b, err := read(ctx, dir)
	if err != nil {
		return Report{}, err
	}
	return check(b, time.Now()), nil
}
