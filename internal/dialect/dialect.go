// Package dialect holds what packages outbox, idempotency and saga need to know
// about a SQL database beyond database/sql. It imports no driver: errors are
// told apart by their text, which is the same in every driver of a database.
package dialect

import (
	"errors"
	"fmt"
	"strings"
)

// Dialect names a kind of SQL database. It is a small comparable value; the
// zero value is no dialect and is refused by Check.
type Dialect struct {
	name      string
	maxParams int
}

// SQLite is version 3.35 or later, by any database/sql driver. Use a file in WAL
// mode with a busy timeout and immediate transactions.
var SQLite = Dialect{name: "sqlite", maxParams: 32766}

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

const maxPrefix = 40 // leaves room for suffixes within the 63 bytes that PostgreSQL allows

// CheckPrefix reports whether prefix can begin table names without quoting in
// every dialect: 1 to 40 letters, digits or '_', not a digit first.
func CheckPrefix(prefix string) error {
	legal := func(i int, r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '_' || i > 0 && r >= '0' && r <= '9'
	}
	bad := prefix == "" || len(prefix) > maxPrefix
	for i, r := range prefix {
		bad = bad || !legal(i, r)
	}
	if bad {
		return fmt.Errorf("table prefix %q: use 1 to %d letters, digits or '_', and no digit first", prefix, maxPrefix)
	}
	return nil
}

// IsMissingTable reports whether err says that a table does not exist.
func (d Dialect) IsMissingTable(err error) bool {
	return err != nil && strings.Contains(err.Error(), "no such table")
}

// IsBusy reports whether err says that another transaction was in the way, so
// that the same statement may succeed a moment later.
func (d Dialect) IsBusy(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	return strings.Contains(text, "database is locked") || strings.Contains(text, "table is locked") ||
		strings.Contains(text, "SQLITE_BUSY")
}
