package outbox

import (
	"strconv"
	"strings"

	"github.com/millrace-go/millrace/internal/dialect"
)

// schemaVersion is kept in the relay's row, so that a program can refuse tables
// that a newer one has changed.
const schemaVersion = 1

// statements are the SQL of one outbox. Times are Unix milliseconds; those of
// the lease are the database's own. Ids and keys are bytes, for they may hold
// any.
type statements struct {
	dialect    Dialect
	prefix     string
	migrations []dialect.Migration
	keyColumn  string

	insert, schedule insertion

	peek, acquire, taken, renew, fence, release    string // the relay's row
	positions, acquireAll                          string // of PostgreSQL only
	read, oldest, chunk, below, deleteRange, ahead string // the log
	nextDue, due, moveDue, deleteDue               string // scheduled rows
	takeDue                                        string // due, moveDue and deleteDue in one; PostgreSQL only
	park, parkBehind, unlog, inLog, heldKeys       string // parking
	parked, parkedOf                               string // inspecting
	unpark, dropParked, unparkKey, dropKey         string // sending again
	firstOfKey, logKey, moveLogRows, dropLogRows   string
	state, pending, oldestPending, endOfLog        string // stats
	backlog, scheduled, parkCount                  string
}

// flavour is what the databases spell differently.
type flavour struct {
	schema  string // the tables, separated by lines of ---
	now     string // the database's clock in Unix milliseconds
	integer string // the type to cast a parameter to
	key     string // the column's name
	fence   string // holds the relay's row if the token is still the one given
	renewed string // what follows the UPDATE that records progress
}

const eventColumns = `id, topic, {key}, metadata, payload`

func newStatements(d Dialect, prefix string) statements {
	f := map[Dialect]flavour{SQLite: sqliteFlavour, Postgres: postgresFlavour, MySQL: mysqlFlavour}[d]
	_, index := dialect.SplitPrefix(prefix)
	tokens := strings.NewReplacer("{p}", prefix, "{i}", index, "{now}", f.now, "{int}", f.integer, "{key}", f.key,
		"{event}", strings.ReplaceAll(eventColumns, "{key}", f.key))
	unbound := func(s string) string { return tokens.Replace(strings.TrimSpace(s)) }
	q := func(s string) string { return d.Rebind(unbound(s)) }
	s := statements{dialect: d, prefix: prefix, keyColumn: f.key}
	s.migrations = []dialect.Migration{{Version: 1, Statements: strings.Split(q(f.schema), "\n---\n")}}
	insertStatements(&s, q)
	relayStatements(&s, unbound, f)
	parkingStatements(&s, q)
	s.state = q(`SELECT owner, lease_until, published, gaps FROM {p}_relay WHERE singleton = 1`)
	s.pending = q(`SELECT count(*) FROM (SELECT 1 AS one FROM {p} WHERE position > ? LIMIT ?) AS few`)
	s.oldestPending = q(`SELECT created_at FROM {p} WHERE position > ? ORDER BY position LIMIT 1`)
	s.endOfLog = q(`SELECT coalesce(max(position), 0) FROM {p}`)
	s.backlog = q(`SELECT (SELECT coalesce(max(position), 0) FROM {p}) - published FROM {p}_relay WHERE singleton = 1`)
	s.scheduled = q(`SELECT count(*) FROM {p}_scheduled`)
	s.parkCount = q(`SELECT count(*) FROM {p}_parked`)
	return s
}

func relayStatements(s *statements, unbound func(string) string, f flavour) {
	q := func(text string) string { return s.dialect.Rebind(unbound(text)) }
	s.peek = q(`SELECT version, lease_until - {now} FROM {p}_relay WHERE singleton = 1`)
	s.acquire = q(`UPDATE {p}_relay SET owner = ?, token = token + 1, lease_until = {now} + ? WHERE singleton = 1 AND lease_until <= {now}`)
	s.taken = q(`SELECT token, published, gaps, swept FROM {p}_relay WHERE singleton = 1`)
	if s.dialect == Postgres {
		s.positions = unbound(postgresPositions)
		s.acquireAll = s.acquire + ` AND version <= ` + strconv.Itoa(schemaVersion) + ` RETURNING token, published, gaps, swept, pg_postmaster_start_time()`
	}
	s.renew = q(`UPDATE {p}_relay SET published = ?, gaps = ?, swept = ?, lease_until = {now} + ? WHERE singleton = 1 AND token = ?` + f.renewed)
	s.fence = q(f.fence)
	s.release = q(`UPDATE {p}_relay SET owner = '', lease_until = 0, swept = ? WHERE singleton = 1 AND token = ?`)

	s.read = q(`SELECT position, {event} FROM {p} WHERE position > ? ORDER BY position LIMIT ?`)
	s.oldest = q(`SELECT position, created_at FROM {p} WHERE position > ? AND position <= ? ORDER BY position LIMIT ?`)
	s.chunk = q(`SELECT count(*), coalesce(max(position), 0), coalesce(max(created_at), 0) FROM
		(SELECT position, created_at FROM {p} WHERE position > ? AND position <= ? ORDER BY position LIMIT ?) AS few`)
	s.below = q(`SELECT EXISTS (SELECT 1 FROM {p} WHERE position <= ?)`)
	s.deleteRange = q(`DELETE FROM {p} WHERE position > ? AND position <= ?`)

	// Further conditions follow, so it is not bound yet.
	s.ahead = unbound(`SELECT position, {event} FROM {p} WHERE (position > ? AND position <= ?`)

	s.nextDue = q(`SELECT due_at FROM {p}_scheduled WHERE due_at >= ? ORDER BY due_at LIMIT 1`)
	s.due = q(`SELECT position FROM {p}_scheduled WHERE due_at >= ? AND due_at <= ? ORDER BY due_at, position LIMIT ?`)
	s.moveDue = q(`INSERT INTO {p} ({event}, created_at)
		SELECT {event}, CAST(? AS {int}) FROM {p}_scheduled WHERE position {list} ORDER BY due_at, position`)
	s.deleteDue = q(`DELETE FROM {p}_scheduled WHERE position {list}`)
	if s.dialect == Postgres {
		s.takeDue = q(`WITH taken AS (DELETE FROM {p}_scheduled WHERE position = ANY(ARRAY(
			SELECT position FROM {p}_scheduled WHERE due_at >= ? AND due_at <= ? ORDER BY due_at, position LIMIT ?)) RETURNING {event}, due_at, position)
			INSERT INTO {p} ({event}, created_at) SELECT {event}, ?::bigint FROM taken ORDER BY due_at, position`)
	}
}

func parkingStatements(s *statements, q func(string) string) {
	set := `INSERT INTO {p}_parked (position, {event}, created_at, error, attempts, holds_key, parked_at)
		SELECT position, {event}, created_at, ?, CAST(? AS {int}), CAST(? AS {int}), CAST(? AS {int}) FROM {p} AS l WHERE position = ?`
	s.park = q(set)
	s.parkBehind = q(set + ` AND EXISTS (SELECT 1 FROM {p}_parked AS k WHERE k.topic = l.topic AND k.{key} = l.{key} AND k.holds_key = 1)`)
	s.unlog = q(`DELETE FROM {p} WHERE position = ?`)
	s.inLog = q(`SELECT position FROM {p} WHERE position = ?`)
	s.heldKeys = q(`SELECT DISTINCT topic, {key} FROM {p}_parked WHERE holds_key = 1`)

	s.parked = q(`SELECT id, topic, {key}, metadata, payload, created_at, error, attempts, parked_at
		FROM {p}_parked ORDER BY position LIMIT ?`)
	s.parkedOf = q(`SELECT position, topic, {key}, holds_key FROM {p}_parked WHERE id = ? ORDER BY position`)
	back := `INSERT INTO {p} ({event}, created_at) SELECT {event}, created_at FROM `
	s.unpark = q(back + `{p}_parked WHERE position = ?`)
	s.dropParked = q(`DELETE FROM {p}_parked WHERE position = ?`)
	s.unparkKey = q(back + `{p}_parked WHERE topic = ? AND {key} = ? ORDER BY position`)
	s.dropKey = q(`DELETE FROM {p}_parked WHERE topic = ? AND {key} = ?`)
	s.firstOfKey = q(`SELECT coalesce(min(position), 0) FROM {p}_parked WHERE topic = ? AND {key} = ?`)
	s.logKey = q(`SELECT position FROM {p} WHERE topic = ? AND {key} = ? AND position > ? ORDER BY position`)
	s.moveLogRows = q(back + `{p} WHERE position {list} ORDER BY position`)
	s.dropLogRows = q(`DELETE FROM {p} WHERE position {list}`)
}

// list puts positions into a statement that has the token {list}. PostgreSQL
// gets them as one parameter, so that the statement stays the same; it must be
// the last one.
func (s *statements) list(statement string, positions []int64, args ...any) (string, []any) {
	if s.dialect == Postgres {
		mark := "= ANY($" + strconv.Itoa(len(args)+1) + "::text::bigint[])"
		return strings.Replace(statement, "{list}", mark, 1), append(args, arrayOf(positions, func(p int64) int64 { return p }))
	}
	var b strings.Builder
	b.WriteString("IN (")
	for i, p := range positions {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(p, 10))
	}
	b.WriteByte(')')
	return strings.Replace(statement, "{list}", b.String(), 1), args
}

// arrayOf writes a number of each element as the text of a PostgreSQL array,
// which every driver can pass.
func arrayOf[T any](elements []T, number func(T) int64) string {
	b := make([]byte, 0, 2+12*len(elements))
	b = append(b, '{')
	for i, e := range elements {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, number(e), 10)
	}
	return string(append(b, '}'))
}
