package shipping

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/sqlitedb"
)

const schema = `
CREATE TABLE IF NOT EXISTS parcels (
	parcel_id    TEXT NOT NULL,
	order_id     TEXT NOT NULL,
	shipped_at   TEXT NOT NULL,
	delivered_at TEXT -- NULL while on its way
) STRICT;
CREATE INDEX IF NOT EXISTS parcels_parcel ON parcels (parcel_id)`

func insertParcel(ctx context.Context, tx *sql.Tx, p events.Parcel) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO parcels (parcel_id, order_id, shipped_at) VALUES (?, ?, ?)`,
		p.ParcelID, p.Order.ID, sqlitedb.Time(p.At))
	if err != nil {
		return fmt.Errorf("shipping: ship parcel %s: %w", p.ParcelID, err)
	}
	return nil
}

func markDelivered(ctx context.Context, tx *sql.Tx, p events.Parcel) error {
	_, err := tx.ExecContext(ctx, `UPDATE parcels SET delivered_at = ? WHERE parcel_id = ? AND delivered_at IS NULL`,
		sqlitedb.Time(p.At), p.ParcelID)
	if err != nil {
		return fmt.Errorf("shipping: deliver parcel %s: %w", p.ParcelID, err)
	}
	return nil
}
