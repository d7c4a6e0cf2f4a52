package sagacrash

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/outbox"
	"github.com/millrace-go/millrace/saga"
)

// books are what the services have written down about each order.
type books struct {
	reserved, charged, shipped map[string][]int64
	invoices                   map[string]invoice
}

type invoice struct {
	number int64
	void   bool
}

func (s *scene) books() books {
	b := books{s.book(stock, "reserved"), s.book(sales, "charged"), s.book(sales, "shipped"), map[string]invoice{}}
	s.query(orders, "SELECT order_id, number, void FROM invoices", func(rows *sql.Rows) error {
		var id string
		var i invoice
		err := rows.Scan(&id, &i.number, &i.void)
		b.invoices[id] = i
		return err
	})
	return b
}

func (s *scene) book(service, name string) map[string][]int64 {
	all := map[string][]int64{}
	s.query(service, "SELECT order_id, amount FROM "+name+" ORDER BY n", func(rows *sql.Rows) error {
		var id string
		var amount int64
		err := rows.Scan(&id, &amount)
		all[id] = append(all[id], amount)
		return err
	})
	return all
}

func (s *scene) query(service, query string, row func(*sql.Rows) error) {
	s.t.Helper()
	rows, err := s.dbs[service].Query(query)
	require.NoError(s.t, err)
	defer rows.Close()
	for rows.Next() {
		require.NoError(s.t, row(rows))
	}
	require.NoError(s.t, rows.Err())
}

// violations returns what is wrong with any order.
func (s *scene) violations() (wrong []string) {
	s.t.Helper()
	b := s.books()
	for _, o := range s.orders {
		i, err := s.store.Load(s.t.Context(), "fulfilment", o.ID)
		require.NoError(s.t, err)
		for _, w := range append(b.check(o, i), s.checkHistory(i)...) {
			wrong = append(wrong, o.ID+": "+w)
		}
	}
	counts, err := s.store.Count(s.t.Context(), "fulfilment")
	require.NoError(s.t, err)
	if n := counts[saga.Completed] + counts[saga.Compensated]; n != int64(len(s.orders)) {
		wrong = append(wrong, fmt.Sprintf("there are instances beside those of the orders: %v", counts))
	}
	return append(wrong, s.audit()...)
}

// check compares the books with how the instance has ended.
func (b books) check(o Order, i saga.Instance) (wrong []string) {
	expect := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%s, but ", i.Status)+fmt.Sprintf(format, args...))
		}
	}
	stock, money, shipped, inv := b.reserved[o.ID], b.charged[o.ID], b.shipped[o.ID], b.invoices[o.ID]
	switch i.Status {
	case saga.Completed:
		expect(slices.Equal(stock, []int64{o.Quantity}), "its stock was moved by %v", stock)
		expect(slices.Equal(money, []int64{o.Cents}), "it was charged %v", money)
		expect(slices.Equal(shipped, []int64{o.Quantity}), "it was shipped as %v", shipped)
		state, err := saga.StateOf(fulfilment(ledger{}), i)
		o.Invoice = inv.number
		expect(err == nil && inv.number > 0 && !inv.void && state == o, "its state is %+v (%v) and its invoice %+v", state, err, inv)
		expect(o.Fate != declined && o.Fate != uninvoiced, "its fate was %s", o.Fate)
	case saga.Compensated:
		expect(len(stock) == 0 || slices.Equal(stock, []int64{o.Quantity, -o.Quantity}), "its stock was moved by %v", stock)
		expect(len(money) == 0 || slices.Equal(money, []int64{o.Cents, -o.Cents}), "it was charged %v", money)
		expect(len(shipped) == 0, "it was shipped as %v", shipped)
		expect(inv.number == 0 || inv.void, "its invoice is %+v", inv)
		expect(i.Error != "", "nobody says why")
	default:
		expect(false, "it should have ended: %s", i.Error)
	}
	return wrong
}

// checkHistory looks for gaps in the history of an instance.
func (s *scene) checkHistory(i saga.Instance) []string {
	entries, err := s.store.History(s.t.Context(), i.Saga, i.ID)
	require.NoError(s.t, err)
	for n, e := range entries {
		if e.Revision != int64(n+1) {
			return []string{fmt.Sprintf("entry %d of its history is revision %d", n, e.Revision)}
		}
	}
	if int64(len(entries)) != i.Revision {
		return []string{fmt.Sprintf("it is at revision %d and has %d entries of history", i.Revision, len(entries))}
	}
	return nil
}

// audit returns what must not be at any time.
func (s *scene) audit() (wrong []string) {
	var sum, ownCents, charged int64
	require.NoError(s.t, s.dbs[sales].QueryRow(
		"SELECT (SELECT sum(cents) FROM accounts), (SELECT cents FROM accounts WHERE name = $1), (SELECT coalesce(sum(amount), 0) FROM charged)", ours).Scan(&sum, &ownCents, &charged))
	if sum != customers*cents || ownCents != charged {
		wrong = append(wrong, fmt.Sprintf("the accounts have %d cents, our own %d, of which %d were charged", sum, ownCents, charged))
	}
	var least, left int64
	require.NoError(s.t, s.dbs[stock].QueryRow("SELECT min(quantity), sum(quantity) + (SELECT coalesce(sum(amount), 0) FROM reserved) FROM shelves").Scan(&least, &left))
	if least < 0 || left != s.stocked {
		wrong = append(wrong, fmt.Sprintf("the shelves and what is reserved have %d, at least %d of each, and were filled with %d", left, least, s.stocked))
	}
	return wrong
}

func (s *scene) auditAlong(ctx context.Context) {
	for pause(ctx, 500*time.Millisecond) {
		if wrong := s.audit(); len(wrong) > 0 {
			s.t.Errorf("while orders are in flight: %q", wrong)
			return
		}
	}
}

// undrained returns what is left in outboxes.
func (s *scene) undrained() (wrong []string) {
	for service, db := range s.dbs {
		stats, err := outbox.New(db.DB, outbox.Postgres).Stats(s.t.Context())
		require.NoError(s.t, err)
		if stats.Pending+stats.Scheduled+stats.Parked > 0 {
			wrong = append(wrong, fmt.Sprintf("outbox of %s: %+v", service, stats))
		}
	}
	return wrong
}

// report prints what has happened, most of which the test would be worth little
// without.
func (s *scene) report(took, settled time.Duration) {
	counts, err := s.store.Count(s.t.Context(), "fulfilment")
	require.NoError(s.t, err)
	reasons := map[string]int{}
	timeouts, calls := 0, 0
	for _, o := range s.orders {
		i, err := s.store.Load(s.t.Context(), "fulfilment", o.ID)
		require.NoError(s.t, err)
		if i.Error != "" {
			reasons[i.Error]++
		}
		entries, err := s.store.History(s.t.Context(), "fulfilment", o.ID)
		require.NoError(s.t, err)
		for _, e := range entries {
			if e.Event == "wake" && (strings.Contains(e.From, "waiting") || strings.Contains(e.From, "compensating: ")) {
				timeouts++
			}
		}
	}
	require.NoError(s.t, s.dbs[orders].QueryRow("SELECT coalesce(sum(times - 1), 0) FROM calls").Scan(&calls))
	s.t.Logf("%d sagas in %v: %v; compensated because of %v", len(s.orders), took.Round(time.Millisecond), counts, reasons)
	s.t.Logf("kills: %v; %d timeouts, %d calls repeated; %s; settled %v after the end", s.crew.kills, timeouts, calls, &s.crew.tally, settled.Round(time.Millisecond))
	require.Greater(s.t, counts[saga.Completed], int64(len(s.orders)/4))
	require.Greater(s.t, counts[saga.Compensated], int64(len(s.orders)/10))
	require.NotZero(s.t, timeouts)
}
