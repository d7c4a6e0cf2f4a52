package watermillsql

import (
	stdsql "database/sql"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
)

// MySQLSchema is a sql.SchemaAdapter over the tables of a bus in MySQL or
// MariaDB. What one Publish takes is bounded by the server's max_allowed_packet
// and to 9,000 messages.
type MySQLSchema struct {
	// BatchSize is how many events a subscriber reads at a time. Those that were
	// handled before one that fails are settled together with it. Defaults to 100.
	BatchSize int
}

var _ sql.SchemaAdapter = MySQLSchema{}

// InsertQuery implements sql.SchemaAdapter.
func (MySQLSchema) InsertQuery(topic string, messages message.Messages) (sql.Query, error) {
	rows, err := rowsOf(topic, messages)
	if err != nil {
		return sql.Query{}, err
	}
	values, args := make([]string, len(rows)), make([]any, 0, 7*len(rows))
	for i, r := range rows {
		values[i] = "(?, ?, ? % " + partitions + ", ?, ?, ?, ?)"
		args = append(args, r.due, topic, r.hash, r.key, r.id, r.metadata, r.payload)
	}
	return sql.Query{
		Query: "INSERT INTO millrace_due (due_at, topic, `partition`, `key`, id, metadata, payload) VALUES " + strings.Join(values, ", "),
		Args:  args,
	}, nil
}

// SelectQuery implements sql.SchemaAdapter. It works with MySQLOffsets.
func (s MySQLSchema) SelectQuery(topic, group string, offsets sql.OffsetsAdapter) sql.Query {
	next := offsets.NextOffsetQuery(topic, group)
	return sql.Query{
		Query: "SELECT position, id, metadata, payload FROM millrace_events WHERE topic = ? AND position > (" + next.Query + ") ORDER BY position LIMIT " + fmt.Sprint(batchSize(s.BatchSize)),
		Args:  append([]any{topic}, next.Args...),
	}
}

// UnmarshalMessage implements sql.SchemaAdapter.
func (MySQLSchema) UnmarshalMessage(row sql.Scanner) (sql.Row, error) { return unmarshal(row) }

// SchemaInitializingQueries implements sql.SchemaAdapter: there are none.
func (MySQLSchema) SchemaInitializingQueries(string) []sql.Query { return nil }

// SubscribeIsolationLevel implements sql.SchemaAdapter. Positions become visible
// in their order, so nothing stronger is needed; and what is stronger would make
// publishers wait for handlers.
func (MySQLSchema) SubscribeIsolationLevel() stdsql.IsolationLevel {
	return stdsql.LevelReadCommitted
}

// MySQLOffsets is a sql.OffsetsAdapter over the tables of a bus in MySQL or
// MariaDB.
type MySQLOffsets struct{}

var _ sql.OffsetsAdapter = MySQLOffsets{}

// BeforeSubscribingQueries implements sql.OffsetsAdapter. A new group begins with
// the oldest event kept.
func (MySQLOffsets) BeforeSubscribingQueries(topic, group string) []sql.Query {
	return []sql.Query{{Query: "INSERT IGNORE INTO millrace_groups (topic, group_name, `partition`, `cursor`, token) " +
		"WITH RECURSIVE p (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM p WHERE n + 1 < " + partitions + ") " +
		"SELECT ?, ?, n, 0, 0 FROM p", Args: []any{topic, group}}}
}

// NextOffsetQuery implements sql.OffsetsAdapter. It locks the group until the
// transaction ends.
func (MySQLOffsets) NextOffsetQuery(topic, group string) sql.Query {
	return sql.Query{Query: "SELECT `cursor` FROM millrace_groups WHERE topic = ? AND group_name = ? AND `partition` = 0 FOR UPDATE", Args: []any{topic, group}}
}

// AckMessageQuery implements sql.OffsetsAdapter.
func (MySQLOffsets) AckMessageQuery(topic string, row sql.Row, group string) sql.Query {
	return sql.Query{Query: "UPDATE millrace_groups SET `cursor` = ? WHERE topic = ? AND group_name = ?", Args: []any{row.Offset, topic, group}}
}

// ConsumedMessageQuery implements sql.OffsetsAdapter: there is none.
func (MySQLOffsets) ConsumedMessageQuery(string, sql.Row, string, []byte) sql.Query {
	return sql.Query{}
}

// SchemaInitializingQueries implements sql.OffsetsAdapter: there are none.
func (MySQLOffsets) SchemaInitializingQueries(string) []sql.Query { return nil }
