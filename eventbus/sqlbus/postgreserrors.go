package sqlbus

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-go/millrace/eventbus/driver"
)

var errReadOnly = errors.New("the server takes no writes: it is a replica, or set to read only; connect to the primary")

// notProvisionedError is its text.
type notProvisionedError string

func (e notProvisionedError) Error() string { return string(e) }
func (notProvisionedError) Unwrap() error   { return driver.ErrNotProvisioned }
func (notProvisionedError) Permanent() bool { return true }

func errNoTables(d Dialect) error {
	return notProvisionedError(fmt.Sprintf("the database lacks the tables of a bus, and provisioning is off: create them with the statements of sqlbus.Schema(%q), or open it once with provisioning", string(d)))
}

func postgresCode(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func (*postgres) duplicate(err error) bool { return postgresCode(err) == "23505" }

func (*postgres) readOnly(err error) bool { return postgresCode(err) == "25006" }

func (*postgres) verdict(err error) verdict {
	code := postgresCode(err)
	switch {
	case code == "" && untrusted(err):
		return refused
	case code == "":
		return lost
	case strings.HasPrefix(code, "57P"): // shut down, or cut off: perhaps after the commit
		return lost
	case strings.HasPrefix(code, "40"), // serialization, deadlock
		strings.HasPrefix(code, "53") && code != "53100",                   // out of connections or memory, but not of disk
		strings.HasPrefix(code, "08"),                                      // a pooler that lost the server
		code == "22012",                                                    // see postgresFloor
		code == "25006",                                                    // a switch-over
		code == "55P03", code == "57014", code == "25P03", code == "25P04": // timeouts
		return conflict
	}
	return refused
}

func (*postgres) meaning(err error) string {
	var parse *pgconn.ParseConfigError
	if errors.As(err, &parse) {
		return "" // it says what is wrong
	}
	if meaning, ok := map[string]string{
		"28P01": "the server refuses user or password; check those in the URL",
		"28000": "the server does not let this user in from here; check user, TLS and pg_hba.conf",
		"3D000": "there is no such database; create it first",
		"42501": "the user lacks a privilege; grant it, or create the tables with the statements of sqlbus.Schema and open with provision=false",
		"42P01": "a table is missing; create them with the statements of sqlbus.Schema, or open the database once with provisioning",
		"25006": errReadOnly.Error(),
		"53100": "the server's disk is full",
		"53300": "the server has no connection left; raise max_connections or lower the parameter connections",
		"57P03": "the server is starting up or shutting down",
		"55P03": "a lock was held too long by another transaction",
	}[postgresCode(err)]; ok {
		return meaning
	}
	if strings.Contains(err.Error(), "server refused TLS connection") {
		return "the server does not speak TLS, but sslmode asks for it; switch it on there, or use sslmode=disable on a network you trust"
	}
	return netMeaning(err)
}
