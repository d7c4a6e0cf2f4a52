package sqlbus

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// mysqlNow is when the statement began.
const mysqlNow = "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"

var mysqlDialect = &dialect{
	now:      mysqlNow,
	lock:     "FOR UPDATE",
	perTopic: true,

	newest:    "SELECT position FROM millrace_topics WHERE topic = ?",
	next:      serverNext,
	tail:      `SELECT position, topic, "partition" FROM millrace_events WHERE topic = ? AND position > ? ORDER BY position {limit}`,
	topics:    "SELECT t.topic FROM millrace_topics AS t WHERE (SELECT e.published_at FROM millrace_events AS e WHERE e.topic = t.topic ORDER BY e.position LIMIT 1) < {now} - ?",
	old:       true,
	insertNew: "INSERT IGNORE",

	commitEvery: serverCommitEvery,
	idleDue:     100 * time.Millisecond, // package watermillsql publishes by way of millrace_due
}

// mysqlServer is the flavour of MySQL and MariaDB.
type mysqlServer struct {
	packet int // max_allowed_packet
}

func (*mysqlServer) dialect() *dialect { return mysqlDialect }

func (*mysqlServer) begin() string { return "START TRANSACTION" }

func (m *mysqlServer) provision(ctx context.Context, db *sql.DB, allowed bool) error {
	var tables, readOnly, rows int
	err := db.QueryRowContext(ctx, "SELECT @@global.read_only, @@max_allowed_packet").Scan(&readOnly, &m.packet)
	switch {
	case err != nil:
		return err
	case readOnly != 0:
		return errReadOnly
	}
	// Asked alone: MariaDB lifts read_only while it looks at this schema.
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'millrace_meta'").Scan(&tables)
	if err == nil && tables > 0 {
		err = db.QueryRowContext(ctx, "SELECT count(*) FROM millrace_meta").Scan(&rows)
	}
	switch {
	case err != nil || rows > 0:
		return err
	case !allowed:
		return errNoTables(MySQL)
	}
	for _, statement := range append(mysqlSchema[:len(mysqlSchema):len(mysqlSchema)], strings.Replace(metaRows, "INSERT", "INSERT IGNORE", 1)) {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

func (*mysqlServer) inspect(s *session) (warnings []string) {
	flush, ok, err := s.number("SELECT @@innodb_flush_log_at_trx_commit")
	if err == nil && ok && flush != 1 {
		warnings = append(warnings, fmt.Sprintf("innodb_flush_log_at_trx_commit is %d", flush))
	}
	return warnings
}

// maxBytes leaves room for the escaping of every byte.
func (m *mysqlServer) maxBytes() int { return min(4<<20, m.packet/3) }

// maxRow does so as well, and for the rest of the statement.
func (m *mysqlServer) maxRow() int { return max(1, (m.packet-packetOverhead)/2) }

// packetOverhead is for what a statement holds beside the events.
const packetOverhead = 64 << 10

// insert takes positions from the row of the topic. They keep up with the clock,
// so that none is given twice when a crash of the server takes back a commit
// that others have seen before it was on disk.
func (*mysqlServer) insert(topic, batch, before string, rows []row, whole bool) (string, []any) {
	var s script
	if whole {
		s.add("START TRANSACTION")
	}
	if batch != "" {
		s.add("INSERT INTO millrace_batches (id, written_at, fence) VALUES (?, "+mysqlNow+", 0)", batch)
		s.add("DELETE FROM millrace_batches WHERE id = ?", before)
	}
	var now, later []*row
	for i := range rows {
		if r := &rows[i]; r.due == 0 {
			now = append(now, r)
		} else {
			later = append(later, r)
		}
	}
	if n := len(now); n > 0 {
		s.add("UPDATE millrace_topics SET position = GREATEST(position, "+mysqlNow+") + ? WHERE topic = ?", n, topic)
		// NULL without the lock, in case the row was created just now.
		s.add("SET @millrace = IF(ROW_COUNT() = 1, (SELECT position - ? FROM millrace_topics WHERE topic = ?), NULL)", n, topic)
		s.add(`INSERT INTO millrace_events (position, topic, "partition", "key", id, metadata, payload, published_at) VALUES `)
		s.rows(now, "(@millrace + ?, ?, ?, ?, ?, ?, ?, "+mysqlNow+")", topic, func(i int, _ *row) any { return i + 1 })
	}
	if len(later) > 0 {
		s.add(`INSERT INTO millrace_due (due_at, topic, "partition", "key", id, metadata, payload) VALUES `)
		s.rows(later, "(?, ?, ?, ?, ?, ?, ?)", topic, func(_ int, r *row) any { return r.due })
	}
	if whole {
		s.add("COMMIT")
	}
	return s.text.String(), s.args
}

// script is some statements that are sent together.
type script struct {
	text strings.Builder
	args []any
}

func (s *script) add(statement string, args ...any) {
	if s.text.Len() > 0 {
		s.text.WriteString("; ")
	}
	s.text.WriteString(statement)
	s.args = append(s.args, args...)
}

// rows continues an INSERT; first is what differs between the tables.
func (s *script) rows(rows []*row, values, topic string, first func(int, *row) any) {
	for i, r := range rows {
		if i > 0 {
			s.text.WriteString(", ")
		}
		s.text.WriteString(values)
		s.args = append(s.args, first(i, r), topic, r.partition, []byte(r.key), []byte(r.id), r.metadata, r.payload)
	}
}

func (*mysqlServer) prepareTopic(s *session, topic string) error {
	_, err := s.exec("INSERT IGNORE INTO millrace_topics (topic, position) VALUES (?, 0)", topic)
	return err
}

func (m *mysqlServer) moveDue(s *session, topic string) error {
	_, found, err := s.number("SELECT position FROM millrace_topics WHERE topic = ? {lock}", topic)
	if err == nil && !found {
		err = m.prepareTopic(s, topic)
	}
	if err != nil {
		return err
	}
	var due numbers
	err = s.each("SELECT seq FROM millrace_due WHERE topic = ? AND due_at <= {now} ORDER BY due_at, seq {limit}", []any{topic, dueStep},
		func(rows *sql.Rows) (bool, error) {
			var seq int64
			err := rows.Scan(&seq)
			due = append(due, seq)
			return true, err
		})
	if err != nil || len(due) == 0 {
		return err
	}
	if _, err := s.exec("UPDATE millrace_topics SET position = GREATEST(position, {now}) + ? WHERE topic = ?", len(due), topic); err != nil {
		return err
	}
	if _, err := s.exec(mysqlMoveDue, len(due), due); err != nil {
		return err
	}
	_, err = s.exec("DELETE FROM millrace_due WHERE seq {in}", due)
	return err
}

const mysqlMoveDue = `INSERT INTO millrace_events (topic, position, "partition", "key", id, metadata, payload, published_at)
SELECT d.topic, t.position - ? + ROW_NUMBER() OVER (ORDER BY d.due_at, d.seq), d."partition", d."key", d.id, d.metadata, d.payload, {now}
FROM millrace_due AS d JOIN millrace_topics AS t ON t.topic = d.topic WHERE d.seq {in}`

func (*mysqlServer) heads(topics []string) (string, []any) {
	args := make([]any, len(topics))
	for i, topic := range topics {
		args[i] = topic
	}
	return "SELECT topic, position FROM millrace_topics WHERE topic IN (?" + strings.Repeat(", ?", len(topics)-1) + ")", args
}

func (*mysqlServer) watch(*server, *Broker) {}
func (*mysqlServer) listening() bool        { return false }
func (*mysqlServer) published(string)       {}
