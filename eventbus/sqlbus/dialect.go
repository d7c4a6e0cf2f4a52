package sqlbus

import (
	"strconv"
	"strings"
	"time"
)

// dialect is what differs between the statements of the databases. Statements
// are written once, with these marks:
//
//	?        an argument
//	{now}    the time in microseconds, by the clock that all processes share
//	{lock}   locks the rows that a SELECT returns, where a transaction does not
//	         lock everything anyway
//	{in}     is one of an argument of type numbers
//	{limit}  at most an argument's number of rows
type dialect struct {
	numbered bool   // arguments are $1, $2, ... instead of ?
	prepares bool   // statements are prepared once and kept
	now      string // what {now} means; ? for an argument: the clock of this process
	lock     string // what {lock} means
	in       string // what {in} means; "" for a list that is part of the statement
	inArg    func(numbers) any
	noLimit  bool // {limit} is left out, and its argument with it

	perTopic bool // newest and tail ask for the topic

	newest string // last position
	next   string // position of the first event of a topic after one, and whether it is older than a time
	tail   string // position, topic and partition of what follows a position
	topics string // that may hold events; where old is set, events older than an argument
	old    bool

	insertNew, unlessThere string // begin and end of an INSERT of rows that may be there

	// commitEvery spaces commits of progress: a crash repeats what was done since.
	commitEvery time.Duration

	// idleDue is how long the housekeeper sleeps when no event waits to be due.
	idleDue time.Duration
}

// of puts the topic before args if this database wants it.
func (d *dialect) of(topic string, args ...any) []any {
	if d.perTopic {
		return append([]any{topic}, args...)
	}
	return args
}

// numbers is an argument for {in}.
type numbers []int64

// bound is a statement in the database's own words.
type bound struct {
	text  string
	clock []int // where the time goes among the arguments
}

// bind translates a statement. What it returns depends on the arguments only
// where d.in is empty.
func (d *dialect) bind(query string, args []any) (b bound, out []any) {
	var text strings.Builder
	text.Grow(len(query) + 64)
	next := 0
	argument := func() any { next++; return args[next-1] }
	add := func(arg any) {
		out = append(out, arg)
		if d.numbered {
			text.WriteByte('$')
			text.WriteString(strconv.Itoa(len(out)))
			return
		}
		text.WriteByte('?')
	}
	for query != "" {
		i := strings.IndexAny(query, "?{")
		if i < 0 {
			text.WriteString(query)
			break
		}
		text.WriteString(query[:i])
		mark := "?"
		if query[i] == '{' {
			mark = query[i : i+strings.IndexByte(query[i:], '}')+1]
		}
		query = query[i+len(mark):]
		switch mark {
		case "?":
			add(argument())
		case "{now}":
			if d.now == "?" {
				b.clock = append(b.clock, len(out))
				add(nil)
			} else {
				text.WriteString(d.now)
			}
		case "{lock}":
			text.WriteString(d.lock)
		case "{in}":
			d.bindIn(&text, argument().(numbers), add)
		case "{limit}":
			if arg := argument(); !d.noLimit {
				text.WriteString("LIMIT ")
				add(arg)
			}
		}
	}
	b.text = text.String()
	return b, out
}

func (d *dialect) bindIn(text *strings.Builder, list numbers, add func(any)) {
	if d.in == "" {
		text.WriteString("IN (" + joined(list) + ")")
		return
	}
	before, after, _ := strings.Cut(d.in, "?")
	text.WriteString(before)
	add(d.inArg(list))
	text.WriteString(after)
}

// joined returns the numbers between commas, and NULL for none.
func joined(list numbers) string {
	if len(list) == 0 {
		return "NULL"
	}
	var b []byte
	for i, n := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return string(b)
}

var sqliteDialect = &dialect{
	prepares: true,
	now:      "?",
	in:       "IN (SELECT value FROM json_each(?))",
	inArg:    func(list numbers) any { return strings.Replace("["+joined(list)+"]", "NULL", "", 1) },
	noLimit:  true, // a bound LIMIT makes SQLite prepare the statement anew every time

	newest: "SELECT max(position) FROM millrace_events",
	// The plus keeps SQLite from looking all events of the topic up and sorting them.
	next: "SELECT position, published_at < ? FROM millrace_events WHERE +topic = ? AND position > ? ORDER BY position {limit}",
	tail: `SELECT position, topic, "partition" FROM millrace_events WHERE position > ? ORDER BY position {limit}`,
	// Skips from one topic to the next, whatever the number of events.
	topics: `WITH RECURSIVE t(topic) AS (
	SELECT min(topic) FROM millrace_events
	UNION ALL
	SELECT (SELECT min(topic) FROM millrace_events WHERE topic > t.topic) FROM t WHERE t.topic IS NOT NULL
) SELECT topic FROM t WHERE topic IS NOT NULL`,
	insertNew: "INSERT OR IGNORE",

	commitEvery: 20 * time.Millisecond,
	idleDue:     time.Hour, // somebody else's change is noticed
}
