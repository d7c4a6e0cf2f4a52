package order

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
)

const schema = `
CREATE TABLE IF NOT EXISTS orders (
	order_id   TEXT PRIMARY KEY,
	payment_id TEXT NOT NULL,
	status     TEXT NOT NULL, -- empty while facts arrived before the order
	reason     TEXT NOT NULL,
	content    TEXT NOT NULL, -- JSON, as placed
	facts      TEXT NOT NULL, -- JSON
	history    TEXT NOT NULL  -- JSON
) STRICT`

// load reads an order, or begins it.
func load(ctx context.Context, tx *sql.Tx, about events.Order) (*order, error) {
	o := &order{Order: about, facts: map[fact]detail{}}
	var facts, history string
	err := tx.QueryRowContext(ctx, `SELECT payment_id, status, reason, facts, history FROM orders WHERE order_id = ?`, about.ID).
		Scan(&o.paymentID, &o.status, &o.reason, &facts, &history)
	if errors.Is(err, sql.ErrNoRows) {
		o.paymentID = "pay-" + about.ID
		return o, nil
	}
	if err == nil {
		err = errors.Join(json.Unmarshal([]byte(facts), &o.facts), json.Unmarshal([]byte(history), &o.history))
	}
	if err != nil {
		return nil, fmt.Errorf("order %s: load: %w", about.ID, err)
	}
	return o, nil
}

func save(ctx context.Context, tx *sql.Tx, o *order) error {
	content, err1 := json.Marshal(o.Order)
	facts, err2 := json.Marshal(o.facts)
	history, err3 := json.Marshal(o.history)
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("order %s: save: %w", o.ID, err)
	}
	_, err := tx.ExecContext(ctx, `
		INSERT INTO orders (order_id, payment_id, status, reason, content, facts, history) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (order_id) DO UPDATE SET status = excluded.status, reason = excluded.reason, facts = excluded.facts, history = excluded.history`,
		o.ID, o.paymentID, o.status, o.reason, string(content), string(facts), string(history))
	if err != nil {
		return fmt.Errorf("order %s: save: %w", o.ID, err)
	}
	return nil
}
