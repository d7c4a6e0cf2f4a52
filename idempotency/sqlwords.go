package idempotency

import (
	"strings"

	"github.com/millrace-go/millrace/internal/dialect"
)

// nowSQL is the time when the statement, or this part of it, began, in Unix
// microseconds.
var nowSQL = map[Dialect]string{
	dialect.SQLite:   "(CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)",
	dialect.Postgres: "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
	dialect.MySQL:    "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
}

// sqlFor returns a function that puts the dialect's words and the table's name
// into statements, and the statements of a schema with an index on expires_at.
func sqlFor(d Dialect, table, schema string) (q func(string) string, create []string) {
	_, name := dialect.SplitPrefix(table)
	words := map[Dialect][]string{
		dialect.SQLite:   {"{hash}", "BLOB", "{bytes}", "BLOB", "{blob}", "BLOB", "{index}", "", "{greatest}", "max", "{ignore}", "", "{nothing}", " ON CONFLICT DO NOTHING"},
		dialect.Postgres: {"{hash}", "BYTEA", "{bytes}", "BYTEA", "{blob}", "BYTEA", "{index}", "", "{greatest}", "greatest", "{ignore}", "", "{nothing}", " ON CONFLICT DO NOTHING"},
		dialect.MySQL: {"{hash}", "BINARY(32)", "{bytes}", "VARBINARY(1000)", "{blob}", "LONGBLOB", "{index}", ",\n  KEY " + name + "_expires_at (expires_at)",
			"{greatest}", "greatest", "{ignore}", " IGNORE", "{nothing}", ""},
	}[d]
	replace := strings.NewReplacer(append(words, "{t}", table, "{now}", nowSQL[d])...)
	q = func(s string) string { return d.Rebind(strings.TrimSpace(replace.Replace(s))) }
	create = []string{q(schema)}
	if d != dialect.MySQL { // which has no CREATE INDEX IF NOT EXISTS
		create = append(create, createIndex(d, table, name))
	}
	return q, create
}

// createIndex makes the index by which old rows are found. In SQLite the schema
// stands before the index, in PostgreSQL only before the table.
func createIndex(d Dialect, table, name string) string {
	index, on := name+"_expires_at", table
	if schema, _ := dialect.SplitPrefix(table); schema != "" && d == dialect.SQLite {
		index, on = schema+"."+index, name
	}
	return "CREATE INDEX IF NOT EXISTS " + index + " ON " + on + " (expires_at)"
}
