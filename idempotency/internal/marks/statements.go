package marks

import (
	"strings"

	"github.com/millrace-go/millrace/internal/dialect"
)

// Statements are the SQL of one inbox. Times are Unix milliseconds. They are
// written with '?' and rebound for the dialect.
type Statements struct {
	Dialect    dialect.Dialect
	Table      string
	Migrations []dialect.Migration

	// Mark writes a mark, by consumer, source, id and handled_at. If it is there no
	// row is affected, or on MySQL there is an error (see IsDuplicate).
	Mark string
	// Strict is Mark on PostgreSQL for pgx: if the mark is there it fails, and with
	// it the transaction. It is cheaper, but drivers forget prepared statements
	// that fail.
	Strict string
	Seen   string // consumer, source, id

	// Prune deletes a step of marks and returns their handled_at. Parameters: from,
	// before, limit. MySQL can't return them: there PruneBound finds the last of
	// the step, and Prune takes from, last, limit.
	PruneBound, Prune string
	Oldest            string // from
}

// For returns the statements of an inbox in a table, which may have a schema.
func For(d dialect.Dialect, table string) Statements {
	s := Statements{Dialect: d, Table: table}
	_, name := dialect.SplitPrefix(table)
	q := func(text string) string {
		return d.Rebind(strings.NewReplacer("{t}", table, "{i}", name).Replace(strings.TrimSpace(text)))
	}
	s.Seen = q(`SELECT 1 FROM {t} WHERE consumer = ? AND source = ? AND id = ?`)
	s.Oldest = q(`SELECT handled_at FROM {t} WHERE handled_at >= ? ORDER BY handled_at LIMIT 1`)
	switch d {
	case dialect.Postgres:
		s.postgres(q)
	case dialect.MySQL:
		s.mysql(q)
	default:
		s.sqlite(q)
	}
	return s
}

const insert = `INSERT INTO {t} (consumer, source, id, handled_at) VALUES (?, ?, ?, ?)`

func versions(q func(string) string, texts ...string) []dialect.Migration {
	var all []dialect.Migration
	for i, text := range texts {
		all = append(all, dialect.Migration{Version: i + 1, Statements: strings.Split(q(text), "\n---\n")})
	}
	return all
}
