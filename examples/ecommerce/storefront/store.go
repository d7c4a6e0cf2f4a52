package storefront

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/sqlitedb"
)

const schema = `
CREATE TABLE IF NOT EXISTS orders (
	seq      INTEGER PRIMARY KEY, -- in order of acceptance
	order_id TEXT NOT NULL UNIQUE,
	status   TEXT NOT NULL,
	reason   TEXT NOT NULL,
	content  TEXT NOT NULL, -- JSON, as placed
	history  TEXT NOT NULL  -- JSON
) STRICT;
CREATE TABLE IF NOT EXISTS idempotency_keys (
	key      TEXT PRIMARY KEY,
	request  BLOB NOT NULL, -- hash of what was asked for
	order_id TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS products (
	sku        TEXT PRIMARY KEY,
	name       TEXT NOT NULL,
	price      INTEGER NOT NULL, -- cents
	quantity   INTEGER NOT NULL,
	revision   INTEGER NOT NULL,
	assortment INTEGER NOT NULL  -- how many products there are
) STRICT;
CREATE TABLE IF NOT EXISTS emails (
	seq       INTEGER PRIMARY KEY,
	order_id  TEXT NOT NULL,
	status    TEXT NOT NULL,
	recipient TEXT NOT NULL,
	subject   TEXT NOT NULL,
	body      TEXT NOT NULL,
	sent_at   TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS emails_order ON emails (order_id)`

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// insertOrder stores an accepted order.
func insertOrder(ctx context.Context, tx *sql.Tx, o orderView) error {
	content, history, err := marshal(o)
	if err == nil {
		_, err = tx.ExecContext(ctx, `INSERT INTO orders (order_id, status, reason, content, history) VALUES (?, ?, ?, ?, ?)`,
			o.ID, o.Status, o.Reason, content, history)
	}
	if err != nil {
		return fmt.Errorf("storefront: store order %s: %w", o.ID, err)
	}
	return nil
}

// updateOrder moves an order on, never back.
func updateOrder(ctx context.Context, tx *sql.Tx, e events.OrderStatus) error {
	content, history, err := marshal(viewOf(e))
	if err == nil {
		_, err = tx.ExecContext(ctx, `
			INSERT INTO orders (order_id, status, reason, content, history) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (order_id) DO UPDATE SET status = excluded.status, reason = excluded.reason, history = excluded.history
			WHERE json_array_length(excluded.history) > json_array_length(orders.history)`,
			e.Order.ID, e.Status, e.Reason, content, history)
	}
	if err != nil {
		return fmt.Errorf("storefront: update order %s to %s: %w", e.Order.ID, e.Status, err)
	}
	return nil
}

func marshal(o orderView) (content, history string, err error) {
	c, err1 := json.Marshal(o.Order)
	h, err2 := json.Marshal(o.History)
	return string(c), string(h), errors.Join(err1, err2)
}

// oneOrder returns an order, or sql.ErrNoRows.
func oneOrder(ctx context.Context, q querier, id string) (orderView, error) {
	found, err := queryOrders(ctx, q, `WHERE order_id = ?`, id)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("storefront: order %s: %w", id, sql.ErrNoRows)
	}
	if err != nil {
		return orderView{}, err
	}
	return found[0], nil
}

// newestOrders returns the orders accepted last, newest first.
func newestOrders(ctx context.Context, q querier, limit int) ([]orderView, error) {
	return queryOrders(ctx, q, `ORDER BY seq DESC LIMIT ?`, limit)
}

func queryOrders(ctx context.Context, q querier, where string, arg any) ([]orderView, error) {
	return query(ctx, q, "orders", `SELECT content, status, reason, history FROM orders `+where, []any{arg},
		func(rows *sql.Rows) (o orderView, err error) {
			var content, history string
			if err := rows.Scan(&content, &o.Status, &o.Reason, &history); err != nil {
				return o, err
			}
			err = errors.Join(json.Unmarshal([]byte(content), &o.Order), json.Unmarshal([]byte(history), &o.History))
			return o, err
		})
}

// updateProduct keeps the newer of what is stored and what is announced.
func updateProduct(ctx context.Context, tx *sql.Tx, s events.Stock) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO products (sku, name, price, quantity, revision, assortment) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (sku) DO UPDATE SET name = excluded.name, price = excluded.price, quantity = excluded.quantity, revision = excluded.revision, assortment = excluded.assortment
		WHERE excluded.revision > products.revision`, s.SKU, s.Name, s.Price, s.Quantity, s.Revision, s.Assortment)
	if err != nil {
		return fmt.Errorf("storefront: update product %s: %w", s.SKU, err)
	}
	return nil
}

func allProducts(ctx context.Context, q querier) ([]productView, error) {
	return query(ctx, q, "products", `SELECT sku, name, price, quantity, revision FROM products ORDER BY name`, nil,
		func(rows *sql.Rows) (p productView, err error) {
			err = rows.Scan(&p.SKU, &p.Name, &p.Price, &p.Stock, &p.Revision)
			return p, err
		})
}

// missingProducts counts the products that were not announced yet.
func missingProducts(ctx context.Context, q querier) (int, error) {
	counts, err := query(ctx, q, "products", `SELECT max(coalesce(max(assortment), 1) - count(*), 0) FROM products`, nil,
		func(rows *sql.Rows) (n int, err error) {
			err = rows.Scan(&n)
			return n, err
		})
	if err != nil {
		return 0, err
	}
	return counts[0], nil
}

func insertEmail(ctx context.Context, tx *sql.Tx, m events.Email) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO emails (order_id, status, recipient, subject, body, sent_at) VALUES (?, ?, ?, ?, ?, ?)`,
		m.OrderID, m.Status, m.To, m.Subject, m.Body, sqlitedb.Time(m.SentAt))
	if err != nil {
		return fmt.Errorf("storefront: store e-mail about order %s being %s: %w", m.OrderID, m.Status, err)
	}
	return nil
}

// emailsOf returns the e-mails about an order in the order they were sent or,
// without an order, the latest hundred.
func emailsOf(ctx context.Context, q querier, orderID string) ([]emailView, error) {
	where, args := `WHERE order_id = ? ORDER BY seq`, []any{orderID}
	if orderID == "" {
		where, args = `ORDER BY seq DESC LIMIT 100`, nil
	}
	return query(ctx, q, "e-mails", `SELECT order_id, status, recipient, subject, body, sent_at FROM emails `+where, args,
		func(rows *sql.Rows) (m emailView, err error) {
			var sent string
			if err := rows.Scan(&m.OrderID, &m.Status, &m.To, &m.Subject, &m.Body, &sent); err != nil {
				return m, err
			}
			m.SentAt, err = sqlitedb.ParseTime(sent)
			return m, err
		})
}

// query returns all rows, as an empty slice if there is none.
func query[T any](ctx context.Context, q querier, what, text string, args []any, scan func(*sql.Rows) (T, error)) ([]T, error) {
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("storefront: read %s: %w", what, err)
	}
	defer rows.Close()
	all := []T{}
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("storefront: read %s: %w", what, err)
		}
		all = append(all, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("storefront: read %s: %w", what, err)
	}
	return all, nil
}
