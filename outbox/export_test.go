package outbox

import (
	"database/sql"
	"time"
)

// RepeatedQueries are the statements that a relay executes again and again.
func RepeatedQueries(db *sql.DB) []string {
	q := New(db, SQLite).sql
	return []string{q.peek, q.renew, q.fence, q.read, q.deleteRange, q.oldest, q.chunk, q.nextDue, q.due, q.park, q.parkBehind, q.unlog, q.inLog}
}

// SetPatience makes relays on MySQL forget missing positions after d.
func SetPatience(d time.Duration) (restore func()) {
	was := patience
	patience = func(time.Duration) time.Duration { return d }
	return func() { patience = was }
}
