package outbox

import (
	"strings"
	"unsafe"
)

// insertion builds the INSERT of one table.
type insertion struct {
	one     string // the statement for a single row
	head    string // the statement for several, up to their list
	row     string // one row of that list
	tail    string
	arrays  string // the statement that takes all rows as five or six arrays; PostgreSQL only
	shared  bool   // topic and time stand before the list and not in each row
	maxRows int
	dueTime bool // rows have a due time
}

// maxBytes is how much metadata and payload goes into one statement.
const maxBytes = 4 << 20

func insertStatements(s *statements, q func(string) string) {
	s.insert = newInsertion(s.dialect, q, "{p}", "", false)
	s.schedule = newInsertion(s.dialect, q, "{p}_scheduled", ", due_at", true)
}

func newInsertion(d Dialect, q func(string) string, table, due string, dueTime bool) insertion {
	mark := strings.Repeat(",?", len(strings.Fields(due))/2)
	into := `INSERT INTO ` + table + ` (topic, created_at, id, {key}, metadata, payload` + due + `) `
	i := insertion{one: q(into + `VALUES (?,?,?,?,?,?` + mark + `)`), row: "(?,?,?,?,?,?" + mark + ")", dueTime: dueTime}
	columns := strings.Count(i.row, "?")
	i.head, i.maxRows = q(into)+" VALUES ", min(1000, d.MaxParams()/columns)
	switch d {
	case SQLite:
		// The rows stand in a VALUES list behind two columns that are the same for all;
		// SQLite inserts them in the order of the list. modernc.org/sqlite looks each
		// parameter up in a list: a row of 1 KiB costs 34 µs in statements of 200 rows,
		// 64 µs in statements of 1000. A statement is no round trip here.
		i.head, i.row, i.tail = q(into)+" SELECT ?, ?, * FROM (VALUES ", "(?,?,?,?"+mark+")", ")"
		i.shared, i.maxRows = true, 200
	case Postgres:
		// Functions in the list are read in step and in order, and nothing is stored in
		// between. In FROM, WITH ORDINALITY, this takes a fourth longer.
		arrays := "unnest(?::bytea[]), unnest(?::bytea[]), unnest(?::bytea[]), unnest(?::bytea[])"
		if dueTime {
			arrays += ", unnest(?::bigint[])"
		}
		i.arrays = q(into + `SELECT ?::text, ?::bigint, ` + arrays)
	}
	return i
}

// text returns the statement for several rows.
func (s *insertion) text(d Dialect, rows int) string {
	var b strings.Builder
	b.Grow(len(s.head) + rows*(len(s.row)+1) + len(s.tail))
	b.WriteString(s.head)
	for i := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(s.row)
	}
	b.WriteString(s.tail)
	return d.Rebind(b.String())
}

// args returns the parameters of text, or of one.
func (s *insertion) args(topic string, at int64, rows []pending) []any {
	args := make([]any, 0, 2+7*len(rows))
	if s.shared && len(rows) > 1 {
		args = append(args, topic, at)
	}
	for i := range rows {
		r := &rows[i]
		if !s.shared || len(rows) == 1 {
			args = append(args, topic, at)
		}
		args = append(args, bytesOf(r.id), bytesOf(r.key), r.metadata, r.payload)
		if s.dueTime {
			args = append(args, r.due)
		}
	}
	return args
}

// arrayArgs returns the parameters of arrays.
func (s *insertion) arrayArgs(topic string, at int64, rows []pending) []any {
	ids, keys := make([][]byte, len(rows)), make([][]byte, len(rows))
	metadata, payloads := make([][]byte, len(rows)), make([][]byte, len(rows))
	for i := range rows {
		r := &rows[i]
		ids[i], keys[i], metadata[i], payloads[i] = bytesOf(r.id), bytesOf(r.key), r.metadata, r.payload
	}
	args := []any{topic, at, ids, keys, metadata, payloads}
	if s.dueTime {
		due := make([]int64, len(rows))
		for i := range rows {
			due[i] = rows[i].due
		}
		args = append(args, due)
	}
	return args
}

// fit returns how many of rows go into one statement.
func (s *insertion) fit(rows []pending) int {
	bytes := 0
	for i := range rows {
		bytes += len(rows[i].metadata) + len(rows[i].payload)
		if i > 0 && (i == s.maxRows || bytes > maxBytes) {
			return i
		}
	}
	return len(rows)
}

// bytesOf returns the bytes of a string, never nil, not to be written to: drivers
// only read their arguments.
func bytesOf(s string) []byte {
	if s == "" {
		return []byte{}
	}
	return unsafe.Slice(unsafe.StringData(s), len(s))
}
