package warehouse

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/sqlitedb"
)

const schema = `
CREATE TABLE IF NOT EXISTS stock (
	sku      TEXT PRIMARY KEY,
	name     TEXT NOT NULL,
	price    INTEGER NOT NULL, -- cents
	initial  INTEGER NOT NULL,
	quantity INTEGER NOT NULL,
	revision INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS dispatches (
	order_id TEXT NOT NULL,
	sku      TEXT NOT NULL,
	quantity INTEGER NOT NULL,
	at       TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS dispatches_order ON dispatches (order_id)`

// assortment is what a new warehouse is filled with. Of the last two there is
// too little on purpose.
var assortment = []events.Stock{
	{SKU: "flour-1kg", Name: "Flour, 1 kg", Price: 249, Quantity: 100_000},
	{SKU: "rye-flour-1kg", Name: "Rye flour, 1 kg", Price: 279, Quantity: 100_000},
	{SKU: "semolina-500g", Name: "Semolina, 500 g", Price: 199, Quantity: 50_000},
	{SKU: "oat-flakes-500g", Name: "Oat flakes, 500 g", Price: 189, Quantity: 50_000},
	{SKU: "yeast-42g", Name: "Fresh yeast, 42 g", Price: 29, Quantity: 25_000},
	{SKU: "bread-tin", Name: "Bread tin", Price: 1490, Quantity: 5_000},
	{SKU: "hand-mill", Name: "Hand mill", Price: 14900, Quantity: 25},
	{SKU: "millstone", Name: "Millstone, pair", Price: 89900, Quantity: 3},
}

// fill puts the assortment into a warehouse that does not have it yet.
func fill(ctx context.Context, tx *sql.Tx) error {
	for _, p := range assortment {
		_, err := tx.ExecContext(ctx, `
			INSERT INTO stock (sku, name, price, initial, quantity, revision) VALUES (?, ?, ?, ?, ?, 1)
			ON CONFLICT (sku) DO NOTHING`, p.SKU, p.Name, p.Price, p.Quantity, p.Quantity)
		if err != nil {
			return fmt.Errorf("warehouse: fill with %s: %w", p.SKU, err)
		}
	}
	return nil
}

// firstMissing returns the first SKU of which an order needs more than there is,
// or "".
func firstMissing(ctx context.Context, tx *sql.Tx, o events.Order, need map[string]int) (string, error) {
	for _, sku := range slices.Sorted(maps.Keys(need)) {
		var have int
		err := tx.QueryRowContext(ctx, `SELECT quantity FROM stock WHERE sku = ?`, sku).Scan(&have)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return "", fmt.Errorf("warehouse: stock of %s for order %s: %w", sku, o.ID, err)
		}
		if have < need[sku] {
			return sku, nil
		}
	}
	return "", nil
}

// take takes an order's goods out of the stock and returns what is left of them.
func take(ctx context.Context, tx *sql.Tx, o events.Order, need map[string]int, at time.Time) ([]events.Stock, error) {
	var left []events.Stock
	for _, sku := range slices.Sorted(maps.Keys(need)) {
		s := events.Stock{SKU: sku}
		err := tx.QueryRowContext(ctx, `
			UPDATE stock SET quantity = quantity - ?, revision = revision + 1 WHERE sku = ?
			RETURNING name, price, quantity, revision, (SELECT count(*) FROM stock)`, need[sku], sku).
			Scan(&s.Name, &s.Price, &s.Quantity, &s.Revision, &s.Assortment)
		if err != nil {
			return nil, fmt.Errorf("warehouse: take %s for order %s: %w", sku, o.ID, err)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO dispatches (order_id, sku, quantity, at) VALUES (?, ?, ?, ?)`,
			o.ID, sku, need[sku], sqlitedb.Time(at))
		if err != nil {
			return nil, fmt.Errorf("warehouse: dispatch %s for order %s: %w", sku, o.ID, err)
		}
		left = append(left, s)
	}
	return left, nil
}

func allStock(ctx context.Context, tx *sql.Tx) ([]events.Stock, error) {
	rows, err := tx.QueryContext(ctx, `SELECT sku, name, price, quantity, revision, count(*) OVER () FROM stock ORDER BY sku`)
	if err != nil {
		return nil, fmt.Errorf("warehouse: list the stock: %w", err)
	}
	defer rows.Close()
	var all []events.Stock
	for rows.Next() {
		var s events.Stock
		if err := rows.Scan(&s.SKU, &s.Name, &s.Price, &s.Quantity, &s.Revision, &s.Assortment); err != nil {
			return nil, fmt.Errorf("warehouse: list the stock: %w", err)
		}
		all = append(all, s)
	}
	return all, rows.Err()
}
