package email

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/millrace-go/millrace/examples/ecommerce/events"
	"github.com/millrace-go/millrace/examples/ecommerce/sqlitedb"
)

// A notification is as good as sent: whoever owns a mail server would send the
// new rows. That there is one for each change is not enforced by a constraint:
// the inbox sees to it, and the audit proves it.
const schema = `
CREATE TABLE IF NOT EXISTS notifications (
	notification_id INTEGER PRIMARY KEY,
	order_id        TEXT NOT NULL,
	status          TEXT NOT NULL,
	recipient       TEXT NOT NULL,
	subject         TEXT NOT NULL,
	body            TEXT NOT NULL,
	sent_at         TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS notifications_order ON notifications (order_id)`

func insertNotification(ctx context.Context, tx *sql.Tx, m events.Email) error {
	_, err := tx.ExecContext(ctx, `
		INSERT INTO notifications (order_id, status, recipient, subject, body, sent_at) VALUES (?, ?, ?, ?, ?, ?)`,
		m.OrderID, m.Status, m.To, m.Subject, m.Body, sqlitedb.Time(m.SentAt))
	if err != nil {
		return fmt.Errorf("email: notify of order %s being %s: %w", m.OrderID, m.Status, err)
	}
	return nil
}
