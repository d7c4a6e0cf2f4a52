package sqlbus

import (
	"errors"

	"github.com/go-sql-driver/mysql"
)

func mysqlCode(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}

func (*mysqlServer) duplicate(err error) bool { return mysqlCode(err) == 1062 }

// missing is about the position, which is NULL if the topic has no row.
func (*mysqlServer) missing(err error) bool { return mysqlCode(err) == 1048 }

func (*mysqlServer) readOnly(err error) bool {
	code := mysqlCode(err)
	return code == 1290 || code == 1792 || code == 1836
}

func (m *mysqlServer) verdict(err error) verdict {
	if errors.Is(err, mysql.ErrPktTooLarge) || errors.Is(err, mysql.ErrNoTLS) {
		return refused
	}
	if m.readOnly(err) { // a switch-over
		return conflict
	}
	switch mysqlCode(err) {
	case 0:
		if untrusted(err) {
			return refused
		}
		return lost
	case 1047, 1969, // a node of Galera without its cluster; out of time
		1053, 1152, 1158, 1159, 1160, 1161, 1180, 1184, 1317, 1927, 3024, 4031: // shut down, cut off, or failed to commit
		return lost
	case 1205, 1213, 1040, 1203, 1226: // lock timeout, deadlock, out of connections
		return conflict
	}
	return refused
}

func (m *mysqlServer) meaning(err error) string {
	if errors.Is(err, mysql.ErrNoTLS) {
		return "the server does not speak TLS, but the parameter tls asks for it; switch it on there, or use tls=false on a network you trust"
	}
	if errors.Is(err, mysql.ErrPktTooLarge) {
		return "the event is larger than the server's max_allowed_packet"
	}
	if m.readOnly(err) {
		return errReadOnly.Error()
	}
	switch mysqlCode(err) {
	case 1045, 1698:
		return "the server refuses user or password; check those in the URL"
	case 1044, 1142, 1227, 1370:
		return "the user lacks a privilege; grant it, or create the tables with the statements of sqlbus.Schema and open with provision=false"
	case 1049:
		return "there is no such database; create it first"
	case 1046:
		return "the URL names no database; write mysql://user:password@host:port/database"
	case 1146:
		return "a table is missing; create them with the statements of sqlbus.Schema, or open the database once with provisioning"
	case 1114, 1021, 1041:
		return "the server's disk or memory is full"
	case 1040, 1203, 1226:
		return "the server has no connection left; raise max_connections or lower the parameter connections"
	case 1205:
		return "a lock was held too long by another transaction"
	case 1130:
		return "the server does not let this host in; check the user's host part"
	}
	return netMeaning(err)
}
