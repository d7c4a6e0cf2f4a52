package sqlbus

import (
	"context"
	"database/sql"
)

const serverNext = "SELECT position, published_at < ? FROM millrace_events WHERE topic = ? AND position > ? ORDER BY position {limit}"

// flavour is what a kind of server does its own way.
type flavour interface {
	dialect() *dialect

	// begin starts a transaction that can't outlive a hung client for long.
	begin() string

	// provision creates what is missing, or fails if that is not allowed.
	provision(ctx context.Context, db *sql.DB, allowed bool) error

	// inspect returns warnings about a server that is less durable than it could be.
	inspect(s *session) []string

	// insert returns the statement that appends rows to topic; with whole it is
	// a transaction of its own. It fails if batch is recorded already, records
	// it, and forgets the batch before. Without a batch it does neither.
	insert(topic, batch, before string, rows []row, whole bool) (string, []any)

	// maxBytes bounds the rows of one insert, maxRow each of them; 0: nothing does.
	maxBytes() int
	maxRow() int

	// prepareTopic creates what insert needs; missing says that this was not there.
	prepareTopic(s *session, topic string) error
	missing(err error) bool

	// duplicate says that a batch is recorded already.
	duplicate(err error) bool

	// moveDue moves events of topic into the log, in a transaction.
	moveDue(s *session, topic string) error

	// heads returns a query for the last position of each topic.
	heads(topics []string) (string, []any)

	// readOnly says that the server takes no writes.
	readOnly(err error) bool
	verdict(err error) verdict
	meaning(err error) string

	// watch tells b of what others publish, if the server can; published is
	// called after a commit.
	watch(s *server, b *Broker)
	listening() bool
	published(topic string)
}
