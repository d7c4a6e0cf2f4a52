// Package dialect holds what packages outbox, idempotency and saga need to know
// about a SQL database beyond database/sql. It imports no driver: errors are
// told apart by their SQLSTATE, where the driver's error has one, or by their
// text, which is the same in every driver of a database.
package dialect

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Dialect names a kind of SQL database. It is a small comparable value; the
// zero value is no dialect and is refused by Check.
type Dialect struct {
	name      string
	maxParams int
}

var (
	// SQLite is version 3.35 or later, by any database/sql driver. Use a file in WAL
	// mode with a busy timeout and immediate transactions.
	SQLite = Dialect{name: "sqlite", maxParams: 32766}
	// Postgres is PostgreSQL 13 or later.
	Postgres = Dialect{name: "postgres", maxParams: 65535}
	// MySQL is MySQL 8.0.1 or later, or MariaDB 10.6 or later, with InnoDB.
	MySQL = Dialect{name: "mysql", maxParams: 65535}
)

// String returns the dialect's name, such as "sqlite".
func (d Dialect) String() string {
	if d.name == "" {
		return "no dialect"
	}
	return d.name
}

// MaxParams is how many parameters one statement may have.
func (d Dialect) MaxParams() int { return d.maxParams }

// Check reports the zero Dialect.
func (d Dialect) Check() error {
	if d.name == "" {
		return errors.New("the dialect is the zero value: pass one, such as SQLite")
	}
	return nil
}

// Rebind turns the parameter marks '?' of a statement into those of the
// dialect. The statement must hold no '?' elsewhere.
func (d Dialect) Rebind(statement string) string {
	if d != Postgres {
		return statement
	}
	var b strings.Builder
	b.Grow(len(statement) + 16)
	n := 0
	for _, c := range []byte(statement) {
		if c != '?' {
			b.WriteByte(c)
			continue
		}
		n++
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(n))
	}
	return b.String()
}

const (
	maxPrefix = 40 // leaves room for suffixes within the 63 bytes that PostgreSQL allows
	maxSchema = 63
)

// CheckPrefix reports whether prefix can begin table names without quoting in
// every dialect: 1 to 40 letters, digits or '_', not a digit first. In front may
// stand the name of a schema, with a '.' between.
func CheckPrefix(prefix string) error {
	schema, name := SplitPrefix(prefix)
	if !isName(name, maxPrefix) || strings.Contains(prefix, ".") && !isName(schema, maxSchema) {
		return fmt.Errorf("table prefix %q: use 1 to %d letters, digits or '_', and no digit first; a schema may stand before it with a '.'", prefix, maxPrefix)
	}
	return nil
}

// SplitPrefix returns the schema of a table prefix, empty if it has none, and
// the rest, which begins the names of indexes: these have no schema.
func SplitPrefix(prefix string) (schema, name string) {
	if schema, name, ok := strings.Cut(prefix, "."); ok {
		return schema, name
	}
	return "", prefix
}

func isName(s string, limit int) bool {
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_'
		digit := r >= '0' && r <= '9'
		if !letter && (!digit || i == 0) {
			return false
		}
	}
	return s != "" && len(s) <= limit
}
