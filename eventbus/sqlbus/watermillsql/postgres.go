package watermillsql

import (
	stdsql "database/sql"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
)

// PostgresSchema is a sql.SchemaAdapter over the tables of a bus in PostgreSQL.
// One Publish takes up to 9,000 messages.
type PostgresSchema struct {
	// BatchSize is how many events a subscriber reads at a time. Those that were
	// handled before one that fails are settled together with it. Defaults to 100.
	BatchSize int
}

var _ sql.SchemaAdapter = PostgresSchema{}

// The lock and the clock are those of package sqlbus.
const (
	postgresLock = "SELECT 1 FROM pg_advisory_xact_lock(1835625580, hashtext($1))"
	postgresTick = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
	// postgresFloor is what positions follow: the clock, since the statement does
	// not see what was committed while it waited for the lock. Whoever held it
	// before gave fewer positions than microseconds have passed. The division fails
	// if the clock was set back since the statement began.
	postgresFloor = "floor AS MATERIALIZED (SELECT greatest((SELECT max(position) FROM millrace_events WHERE topic = $1), " + postgresTick + ") / (clock_timestamp() >= statement_timestamp())::integer AS position FROM locked)"
)

// InsertQuery implements sql.SchemaAdapter.
func (PostgresSchema) InsertQuery(topic string, messages message.Messages) (sql.Query, error) {
	rows, err := rowsOf(topic, messages)
	if err != nil {
		return sql.Query{}, err
	}
	args := []any{topic}
	var now, later []string
	for i, r := range rows {
		n := len(args)
		values := fmt.Sprintf("($%d::bigint, $%d::bigint, $%d::bytea, $%d::bytea, $%d::bytea, $%d::bytea, %d)", n+1, n+2, n+3, n+4, n+5, n+6, i)
		args = append(args, r.due, r.hash, r.key, r.id, r.metadata, r.payload)
		if r.due == 0 {
			now = append(now, values)
		} else {
			later = append(later, values)
		}
	}
	const columns = "(due, hash, key, id, metadata, payload, n)"
	var ctes, statements []string
	if len(now) > 0 {
		ctes = append(ctes, "locked AS MATERIALIZED ("+postgresLock+")", postgresFloor)
		statements = append(statements, `INSERT INTO millrace_events (topic, position, partition, key, id, metadata, payload, published_at)
SELECT $1, floor.position + 1 + e.n, e.hash % `+partitions+`, e.key, e.id, e.metadata, e.payload, `+postgresTick+`
FROM floor, (VALUES `+strings.Join(now, ", ")+`) AS e`+columns)
	}
	if len(later) > 0 {
		statements = append(statements, `INSERT INTO millrace_due (due_at, topic, partition, key, id, metadata, payload)
SELECT d.due, $1, d.hash % `+partitions+`, d.key, d.id, d.metadata, d.payload
FROM (VALUES `+strings.Join(later, ", ")+`) AS d`+columns+` ORDER BY d.n`)
	}
	if len(statements) == 2 {
		ctes = append(ctes, "later AS ("+statements[1]+")")
	}
	query := statements[0]
	if len(ctes) > 0 {
		query = "WITH " + strings.Join(ctes, ", ") + " " + query
	}
	return sql.Query{Query: query, Args: args}, nil
}

// SelectQuery implements sql.SchemaAdapter. It works with PostgresOffsets.
func (s PostgresSchema) SelectQuery(topic, group string, offsets sql.OffsetsAdapter) sql.Query {
	next := offsets.NextOffsetQuery(topic, group)
	return sql.Query{Query: `WITH done AS (` + next.Query + `)
SELECT position, id, metadata, payload FROM millrace_events
WHERE topic = $1 AND position > (SELECT cursor FROM done) ORDER BY position LIMIT ` + fmt.Sprint(batchSize(s.BatchSize)), Args: next.Args}
}

func batchSize(n int) int {
	if n < 1 {
		return defaultBatch
	}
	return n
}

// UnmarshalMessage implements sql.SchemaAdapter.
func (PostgresSchema) UnmarshalMessage(row sql.Scanner) (sql.Row, error) { return unmarshal(row) }

// SchemaInitializingQueries implements sql.SchemaAdapter: there are none.
func (PostgresSchema) SchemaInitializingQueries(string) []sql.Query { return nil }

// SubscribeIsolationLevel implements sql.SchemaAdapter. Positions become visible
// in their order, so nothing stronger is needed.
func (PostgresSchema) SubscribeIsolationLevel() stdsql.IsolationLevel {
	return stdsql.LevelReadCommitted
}

// PostgresOffsets is a sql.OffsetsAdapter over the tables of a bus in PostgreSQL.
type PostgresOffsets struct{}

var _ sql.OffsetsAdapter = PostgresOffsets{}

// BeforeSubscribingQueries implements sql.OffsetsAdapter. A new group begins with
// the oldest event kept.
func (PostgresOffsets) BeforeSubscribingQueries(topic, group string) []sql.Query {
	return []sql.Query{{Query: `INSERT INTO millrace_groups (topic, group_name, partition, cursor, token)
SELECT $1::text, $2::text, p, 0, 0 FROM generate_series(0, ` + partitions + ` - 1) AS p ON CONFLICT DO NOTHING`, Args: []any{topic, group}}}
}

// NextOffsetQuery implements sql.OffsetsAdapter. It locks the group until the
// transaction ends.
func (PostgresOffsets) NextOffsetQuery(topic, group string) sql.Query {
	return sql.Query{Query: "SELECT cursor FROM millrace_groups WHERE topic = $1 AND group_name = $2 AND partition = 0 FOR UPDATE", Args: []any{topic, group}}
}

// AckMessageQuery implements sql.OffsetsAdapter.
func (PostgresOffsets) AckMessageQuery(topic string, row sql.Row, group string) sql.Query {
	return sql.Query{Query: "UPDATE millrace_groups SET cursor = $1 WHERE topic = $2 AND group_name = $3", Args: []any{row.Offset, topic, group}}
}

// ConsumedMessageQuery implements sql.OffsetsAdapter: there is none.
func (PostgresOffsets) ConsumedMessageQuery(string, sql.Row, string, []byte) sql.Query {
	return sql.Query{}
}

// SchemaInitializingQueries implements sql.OffsetsAdapter: there are none.
func (PostgresOffsets) SchemaInitializingQueries(string) []sql.Query { return nil }
