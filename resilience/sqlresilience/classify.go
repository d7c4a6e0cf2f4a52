package sqlresilience

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/resilience"
)

// Classify returns the class of err. What is marked keeps its class. Of the errors
// of PostgreSQL, MySQL, MariaDB and SQLite, by whatever driver, those that say that
// another transaction was in the way, that the connection was lost or could not be
// made, or that the server is shutting down or starting, are Transient. Those that
// say that it has no room are Throttled. All others, such as broken constraints,
// malformed statements and refused logins, are Permanent, and so are sql.ErrNoRows
// and sql.ErrTxDone. The rest is left to resilience.Classify.
func Classify(err error) resilience.Class {
	if c := recognise(err); c != 0 {
		return c
	}
	return resilience.Classify(err)
}

// AsClass marks err with its class, if it is one of a database, so that
// resilience.Classify knows it. Text and chain stay as they are. It returns nil
// for nil.
func AsClass(err error) error {
	if c := recognise(err); c != 0 {
		return &classed{err, c}
	}
	return err
}

// classed is an error of a database with its class.
type classed struct {
	error
	class resilience.Class
}

func (e *classed) Unwrap() error           { return e.error }
func (e *classed) Class() resilience.Class { return e.class }

// recognise returns the class of an error of a database, or 0 for another one or
// one that is marked.
func recognise(err error) resilience.Class {
	if err == nil || marked(err) {
		return 0
	}
	if s := sqlState(err); s != "" {
		return ofState(s)
	}
	if n := number(err); n != 0 {
		return ofNumber(n, err)
	}
	switch {
	case dialect.SQLite.IsBusy(err), lost(err):
		return resilience.Transient
	case mentionsAny(err, "constraint failed", "syntax error", "SQL logic error", "no such table", "no such column", "has no column", "datatype mismatch", "readonly database"),
		errors.Is(err, sql.ErrNoRows), errors.Is(err, sql.ErrTxDone):
		return resilience.Permanent
	}
	return 0
}

// marked reports whether err says itself what class it is.
func marked(err error) bool {
	var says interface{ Class() resilience.Class }
	return resilience.Classify(err) != resilience.Transient || errors.As(err, &says)
}

// sqlState returns the SQLSTATE of an error, as the drivers of PostgreSQL give it.
func sqlState(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) && len(e.SQLState()) == 5 {
		return e.SQLState()
	}
	return ""
}

// ofState goes by appendix A of PostgreSQL's manual.
func ofState(s string) resilience.Class {
	switch s {
	case "40002", "40003": // a constraint of the transaction; CockroachDB's ambiguous result
		return resilience.Permanent
	case "55P03", // a lock that is not available
		"57014",                            // a statement's time is up
		"57P01", "57P02", "57P03", "57P05", // the server ends, starts, or ends the session
		"25P03", "25P04": // a transaction's time is up
		return resilience.Transient
	}
	switch s[:2] {
	case "08", "40":
		return resilience.Transient
	case "53":
		return resilience.Throttled
	}
	return resilience.Permanent
}

// number returns the number of an error of MySQL or MariaDB: drivers write
// "Error 1213 (40001): ..." or "Error 1213: ...".
func number(err error) int {
	n := 0
	anyOf(err, func(err error) bool {
		text, ok := strings.CutPrefix(err.Error(), "Error ")
		if !ok {
			return false
		}
		digits := text[:len(text)-len(strings.TrimLeft(text, "0123456789"))]
		n, _ = strconv.Atoi(digits)
		return n >= 1000
	})
	if n < 1000 {
		return 0
	}
	return n
}

// cutOff are the numbers of errors after which a connection, or what ran on it,
// is gone: WSREP is not ready, shutdown, errors of the network, statements that
// were killed or took too long, connections that were killed or lost.
var cutOff = []int{1047, 1053, 1158, 1159, 1160, 1161, 1317, 1927, 1969, 2006, 2013, 3024, 4031}

func ofNumber(n int, err error) resilience.Class {
	switch {
	case dialect.MySQL.IsBusy(err), slices.Contains(cutOff, n):
		return resilience.Transient
	case n == 1040, n == 1203, n == 1226: // too many connections
		return resilience.Throttled
	}
	return resilience.Permanent
}

// lost reports whether err says that there is no connection.
func lost(err error) bool {
	var network net.Error
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.As(err, &network) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrUnexpectedEOF) || unsent(err) ||
		anyOf(err, func(err error) bool { return err.Error() == "invalid connection" }) // of go-sql-driver/mysql
}

// unsent reports whether the driver says that nothing was sent, as pgx does.
func unsent(err error) bool {
	var e interface{ SafeToRetry() bool }
	return errors.As(err, &e) && e.SafeToRetry()
}

func mentionsAny(err error, parts ...string) bool {
	return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(err.Error(), p) })
}

// anyOf reports whether is holds for an error in err's tree.
func anyOf(err error, is func(error) bool) bool {
	if err == nil {
		return false
	}
	if is(err) {
		return true
	}
	switch x := err.(type) { //nolint:errorlint // this walks the tree itself
	case interface{ Unwrap() error }:
		return anyOf(x.Unwrap(), is)
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(x.Unwrap(), func(err error) bool { return anyOf(err, is) })
	}
	return false
}
