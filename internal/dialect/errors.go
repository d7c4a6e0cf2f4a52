package dialect

import (
	"errors"
	"strings"
)

// state returns the SQLSTATE of an error, as the drivers of PostgreSQL give it.
func state(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// mentions reports whether the text of err has one of the parts. MySQL's
// drivers write "Error 1146 (42S02): ...", older ones "Error 1146: ...".
func mentions(err error, parts ...string) bool {
	text := err.Error()
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// IsMissingTable reports whether err says that a table does not exist.
func (d Dialect) IsMissingTable(err error) bool {
	if err == nil {
		return false
	}
	switch d {
	case Postgres:
		return state(err) == "42P01" || state(err) == "3F000"
	case MySQL:
		return mentions(err, "Error 1146", "Error 1049")
	}
	return mentions(err, "no such table")
}

// IsBusy reports whether err says that another transaction was in the way, so
// that the same statement may succeed a moment later.
func (d Dialect) IsBusy(err error) bool {
	if err == nil {
		return false
	}
	switch d {
	case Postgres:
		return d.IsConflict(err) || state(err) == "55P03"
	case MySQL:
		return d.IsConflict(err) || mentions(err, "Error 1205", "Error 3572")
	}
	return mentions(err, "database is locked", "table is locked", "SQLITE_BUSY")
}

// IsConflict reports whether err says that the database has rolled the
// transaction back because of another one, so that the whole of it may be
// tried again: a deadlock or a failed serialization.
func (d Dialect) IsConflict(err error) bool {
	if err == nil {
		return false
	}
	switch d {
	case Postgres:
		s := state(err)
		return s == "40001" || s == "40P01"
	case MySQL: // 1020 is MariaDB's snapshot conflict
		return mentions(err, "Error 1213", "Error 1020")
	}
	return mentions(err, "SQLITE_BUSY_SNAPSHOT", "(517)", "database is locked", "SQLITE_BUSY")
}
