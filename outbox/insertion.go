package outbox

import "strings"

// insertion builds the multi-row INSERT of one table. Topic and time are the
// same for all rows of a call and are passed once.
type insertion struct {
	one     string // the statement for a single row
	head    string // the statement up to the list of rows
	row     string // one row of that list
	tail    string
	maxRows int
	dueTime bool // rows have a due time
}

// text returns the statement for several rows.
func (s *insertion) text(rows int) string {
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
	return b.String()
}

// args returns topic, time and then the columns of each row.
func (s *insertion) args(topic string, at int64, rows []pending) []any {
	args := make([]any, 0, 2+5*len(rows))
	args = append(args, topic, at)
	for i := range rows {
		r := &rows[i]
		args = append(args, r.id, r.key, r.metadata, r.payload)
		if s.dueTime {
			args = append(args, r.due)
		}
	}
	return args
}
