package payment

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/sqlitedb"
)

// The ledger is append-only. That an order has one decision is not enforced by a
// constraint: the inbox sees to it, and the audit proves it.
const schema = `
CREATE TABLE IF NOT EXISTS ledger (
	entry_id   INTEGER PRIMARY KEY,
	payment_id TEXT NOT NULL,
	order_id   TEXT NOT NULL,
	kind       TEXT NOT NULL CHECK (kind IN ('confirmed', 'declined', 'refunded')),
	amount     INTEGER NOT NULL, -- cents
	at         TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS ledger_order ON ledger (order_id)`

// kind of a ledger entry.
type kind string

const (
	confirmed kind = "confirmed"
	declined  kind = "declined"
	refunded  kind = "refunded"
)

// enter adds an entry to the ledger.
func enter(ctx context.Context, tx *sql.Tx, paymentID string, o events.Order, k kind, at time.Time) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO ledger (payment_id, order_id, kind, amount, at) VALUES (?, ?, ?, ?, ?)`,
		paymentID, o.ID, k, o.Total, sqlitedb.Time(at))
	if err != nil {
		return fmt.Errorf("payment: enter %q for order %s: %w", k, o.ID, err)
	}
	return nil
}

// balance returns what the shop holds for an order.
func balance(ctx context.Context, tx *sql.Tx, orderID string) (int64, error) {
	var cents int64
	err := tx.QueryRowContext(ctx, `
		SELECT coalesce(sum(CASE kind WHEN 'confirmed' THEN amount WHEN 'refunded' THEN -amount ELSE 0 END), 0)
		FROM ledger WHERE order_id = ?`, orderID).Scan(&cents)
	if err != nil {
		return 0, fmt.Errorf("payment: balance of order %s: %w", orderID, err)
	}
	return cents, nil
}
