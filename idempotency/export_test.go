package idempotency

import "database/sql"

// PruneQuery is the statement of one step of Prune.
func PruneQuery(db *sql.DB) string { return NewInbox(db, SQLite).sql.prune }
