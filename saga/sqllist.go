package saga

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// listStatements are the parts of List. The keys of the instances are found
// first, and only what is returned is read.
type listStatements struct {
	dialect Dialect
	rested  string // the newest of a status whose instances rest, by the index
	moving  string // the newest of another, which are sorted
	due     string // the newest of those that are to be recovered, likewise
	begins  string // with ids from a prefix on, by the primary key
	head    string // around the keys
	tail    string
}

func newListStatements(d Dialect, prefix string) listStatements {
	q := func(s string) string { return strings.NewReplacer("{p}", prefix, "{listed}", byIndex(d)).Replace(s) }
	hint, status := "", "status"
	switch d { // those that would go by the index, for its order
	case MySQL:
		hint = " FORCE INDEX (PRIMARY)"
	case SQLite:
		status = "+status"
	}
	return listStatements{
		dialect: d,
		rested:  q(`SELECT id, rested_at AS updated_at FROM {p} WHERE saga = ? AND status = ?{listed} AND rested_at <= ? AND (rested_at < ? OR id < ?) ORDER BY rested_at DESC, id DESC LIMIT ?`),
		moving:  q(`SELECT id, updated_at FROM {p} WHERE saga = ? AND status = ?{listed} AND updated_at <= ? AND (updated_at < ? OR id < ?) ORDER BY updated_at DESC, id DESC LIMIT ?`),
		due:     q(`SELECT id, updated_at FROM {p} WHERE saga = ? AND status = ?{listed} AND rested_at < 0 AND rested_at >= ? AND updated_at <= ? AND (updated_at < ? OR id < ?) ORDER BY updated_at DESC, id DESC LIMIT ?`),
		begins:  q(`SELECT id, updated_at FROM {p}` + hint + ` WHERE saga = ? AND id >= ? AND id < ? AND updated_at <= ? AND (updated_at < ? OR id < ?) AND ` + status + ` IN `),
		head:    `SELECT i.` + strings.ReplaceAll(instanceColumns, ", ", ", i.") + ` FROM (SELECT id, updated_at FROM (`,
		tail:    q(`) AS found ORDER BY updated_at DESC, id DESC LIMIT ?) AS k JOIN {p} AS i ON i.saga = ? AND i.id = k.id ORDER BY k.updated_at DESC, k.id DESC`),
	}
}

// List is Store.List. Instances with the same time come in the order of their
// ids, backwards.
func (s *SQLStore) List(ctx context.Context, q Query) ([]Instance, error) {
	if s.err != nil {
		return nil, s.err
	}
	if len(q.statuses()) == 0 {
		return nil, nil
	}
	statement, args := s.sql.list.of(q)
	all, err := query(ctx, s.db, statement, args, readInstance)
	if err != nil {
		return nil, s.failed("list", err)
	}
	return all, nil
}

// everyStatus, for there is no index without one.
var everyStatus = []Status{Running, Compensating, Stuck, Completed, Compensated}

func (l listStatements) of(q Query) (statement string, args []any) {
	before := q.before()
	var keys string
	if q.ID != "" {
		keys, args = l.beginning(q, before)
	} else {
		keys, args = l.newestOf(q, before)
	}
	return l.dialect.Rebind(l.head + keys + l.tail), append(args, q.limit(), q.Saga)
}

// statuses are those that the instances may have.
func (q Query) statuses() []Status {
	all := everyStatus
	if len(q.Status) > 0 {
		all = slices.Compact(slices.Sorted(slices.Values(q.Status)))
	}
	if !q.RecoverableAt.IsZero() {
		all = slices.DeleteFunc(slices.Clone(all), func(s Status) bool { return !s.moving() })
	}
	return all
}

// before returns the parameters that say where the list begins.
func (q Query) before() []any {
	switch at := q.Before.Add(time.Millisecond - 1).UnixMilli(); {
	case q.Before.IsZero():
		return []any{int64(math.MaxInt64), int64(math.MaxInt64), []byte{}}
	case q.Before.Equal(time.UnixMilli(at)):
		return []any{at, at, []byte(q.BeforeID)}
	default: // no stored time is equal to it
		return []any{at, at, []byte{}}
	}
}

// newestOf takes the newest of each status.
func (l listStatements) newestOf(q Query, before []any) (statement string, args []any) {
	statuses := q.statuses()
	parts := make([]string, len(statuses))
	for n, status := range statuses {
		newest := l.rested
		args = append(args, q.Saga, string(status))
		switch {
		case !q.RecoverableAt.IsZero():
			newest, args = l.due, append(args, -q.RecoverableAt.UnixMilli())
		case status.moving():
			newest = l.moving
		}
		parts[n] = `SELECT id, updated_at FROM (` + newest + `) AS s` + strconv.Itoa(n)
		args = append(append(args, before...), q.limit())
	}
	return strings.Join(parts, ` UNION ALL `), args
}

func (l listStatements) beginning(q Query, before []any) (statement string, args []any) {
	statement, args = l.begins, []any{q.Saga, []byte(q.ID)}
	if end := after(q.ID); end != nil {
		args = append(args, end)
	} else {
		statement = strings.Replace(statement, ` AND id < ?`, ``, 1)
	}
	args = append(args, before...)
	statuses := q.statuses()
	for _, status := range statuses {
		args = append(args, string(status))
	}
	statement += `(` + strings.TrimSuffix(strings.Repeat("?,", len(statuses)), ",") + `)`
	if !q.RecoverableAt.IsZero() {
		statement, args = statement+` AND rested_at < 0 AND rested_at >= ?`, append(args, -q.RecoverableAt.UnixMilli())
	}
	return statement, args
}

// after returns the first id after all that begin with prefix, nil if there is
// none.
func after(prefix string) []byte {
	end := []byte(prefix)
	for n := len(end) - 1; n >= 0; n-- {
		if end[n] < 0xff {
			end[n]++
			return end[:n+1]
		}
	}
	return nil
}
