package audit

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/millrace-go/millrace/examples/ecommerce/email"
	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/order"
	"github.com/millrace-go/millrace/examples/ecommerce/payment"
	"github.com/millrace-go/millrace/examples/ecommerce/platform"
	"github.com/millrace-go/millrace/examples/ecommerce/shipping"
	"github.com/millrace-go/millrace/examples/ecommerce/sqlitedb"
	"github.com/millrace-go/millrace/examples/ecommerce/storefront"
	"github.com/millrace-go/millrace/examples/ecommerce/warehouse"
)

// books are what the databases hold.
type books struct {
	shown    map[string]orderRow // storefront, read first
	emails   map[string][]events.Status
	orders   map[string]orderRow
	parcels  map[string][]parcel
	stock    map[string]stock
	sent     map[string]map[string]int // dispatched quantity by order and SKU
	payments map[string][]entry
	accepted map[string]orderRow // storefront again, read last
}

// orderRow is an order in the storefront's or the order service's book.
type orderRow struct {
	order   events.Order
	status  events.Status
	history []events.Change
}

type parcel struct{ delivered bool }

type stock struct{ initial, quantity int }

// entry of the ledger.
type entry struct {
	kind   string
	amount int64
}

// read reads effects before causes: an e-mail before the change that it tells
// of, a cancellation before its refund.
func read(ctx context.Context, dir string) (books, error) {
	b := books{
		shown:    map[string]orderRow{},
		emails:   map[string][]events.Status{},
		orders:   map[string]orderRow{},
		parcels:  map[string][]parcel{},
		stock:    map[string]stock{},
		sent:     map[string]map[string]int{},
		payments: map[string][]entry{},
		accepted: map[string]orderRow{},
	}
	for _, book := range []struct {
		service string
		read    func(reader) error
	}{
		{storefront.Name, b.readOrders(b.shown)},
		{email.Name, b.readEmails},
		{order.Name, b.readOrders(b.orders)},
		{shipping.Name, b.readParcels},
		{warehouse.Name, b.readWarehouse},
		{payment.Name, b.readPayments},
		{storefront.Name, b.readOrders(b.accepted)},
	} {
		file := platform.Database(dir, book.service)
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			continue
		}
		err := sqlitedb.Read(ctx, file, func(tx *sql.Tx) error { return book.read(reader{ctx, tx}) })
		if err != nil {
			return b, fmt.Errorf("audit: %w", err)
		}
	}
	return b, nil
}

func (b *books) readOrders(into map[string]orderRow) func(reader) error {
	return func(r reader) error {
		return r.each("orders", `SELECT status, content, history FROM orders`, func(row *sql.Rows) error {
			var o orderRow
			var content, history string
			if err := row.Scan(&o.status, &content, &history); err != nil {
				return err
			}
			err := errors.Join(json.Unmarshal([]byte(content), &o.order), json.Unmarshal([]byte(history), &o.history))
			into[o.order.ID] = o
			return err
		})
	}
}

func (b *books) readEmails(r reader) error {
	return r.each("notifications", `SELECT order_id, status FROM notifications ORDER BY notification_id`, func(row *sql.Rows) error {
		var id string
		var status events.Status
		err := row.Scan(&id, &status)
		b.emails[id] = append(b.emails[id], status)
		return err
	})
}

func (b *books) readParcels(r reader) error {
	return r.each("parcels", `SELECT order_id, delivered_at IS NOT NULL FROM parcels`, func(row *sql.Rows) error {
		var id string
		var p parcel
		err := row.Scan(&id, &p.delivered)
		b.parcels[id] = append(b.parcels[id], p)
		return err
	})
}

func (b *books) readWarehouse(r reader) error {
	err := r.each("stock", `SELECT sku, initial, quantity FROM stock`, func(row *sql.Rows) error {
		var sku string
		var s stock
		err := row.Scan(&sku, &s.initial, &s.quantity)
		b.stock[sku] = s
		return err
	})
	if err != nil {
		return err
	}
	return r.each("dispatches", `SELECT order_id, sku, quantity FROM dispatches`, func(row *sql.Rows) error {
		var id, sku string
		var n int
		err := row.Scan(&id, &sku, &n)
		if b.sent[id] == nil {
			b.sent[id] = map[string]int{}
		}
		b.sent[id][sku] += n
		return err
	})
}

func (b *books) readPayments(r reader) error {
	return r.each("ledger", `SELECT order_id, kind, amount FROM ledger`, func(row *sql.Rows) error {
		var id string
		var e entry
		err := row.Scan(&id, &e.kind, &e.amount)
		b.payments[id] = append(b.payments[id], e)
		return err
	})
}

// reader reads tables of one snapshot.
type reader struct {
	ctx context.Context
	tx  *sql.Tx
}

// each calls fn with every row, with none if the service was killed before it
// had made the table.
func (r reader) each(table, query string, fn func(*sql.Rows) error) error {
	var there bool
	if err := r.tx.QueryRowContext(r.ctx, `SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?`, table).Scan(&there); err != nil || !there {
		return err
	}
	rows, err := r.tx.QueryContext(r.ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return fmt.Errorf("table %s: %w", table, err)
		}
	}
	return rows.Err()
}
