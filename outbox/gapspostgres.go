package outbox

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// postgresGaps forgets a missing position once every transaction that may have
// taken it has ended and it was not seen nevertheless. A row takes its
// transaction's id before its position (postgres.go), and it took its position
// before a later one was seen. So ids that are handed out after that are beyond
// the one that may fill the gap: each record of progress gives such a bound for
// free. When the oldest transaction of a snapshot is not below the bound, and the
// same snapshot does not show the row, it was rolled back. Transactions that only
// read have no id and hold nothing up.
//
// Under a transaction that is open for long, gaps become many. Most need not be
// looked for at every read: whoever may fill one was running when it was last
// looked for, and as long as none of those has ended nothing has changed. The
// statement finds that out by itself.
type postgresGaps struct {
	*term
	late      string // the statement for new and late rows together
	seen      snapshot
	settled   int64    // spans up to this position are looked for only if one of running has ended
	running   []string // ids of transactions
	plan      int      // see replan
	replanned time.Time
}

// snapshot is what a read says about transactions. The zero value says nothing.
type snapshot struct {
	xmin, xmax int64    // all below xmin have ended, as of the read; none from xmax on
	running    []string // those in between that have not
}

func newPostgresGaps(t *term) *postgresGaps {
	event := "position, id, topic, key, metadata, payload"
	p := t.box.sql.prefix
	// Arrays come out of subqueries to hide their length from the planner, which
	// would have a plan compiled for the sake of a thousand gaps.
	within := func(first, last string) string {
		return `SELECT l.* FROM unnest((SELECT ` + first + `::text::bigint[]), (SELECT ` + last + `::text::bigint[])) AS gap(first, last) CROSS JOIN LATERAL
			(SELECT ` + event + ` FROM ` + p + ` WHERE position BETWEEN gap.first AND gap.last ORDER BY position LIMIT $2) AS l`
	}
	return &postgresGaps{term: t, late: `SELECT -1::bigint, pg_current_snapshot()::text::bytea, '', ''::bytea, ''::bytea, ''::bytea
		UNION ALL (SELECT * FROM (
			SELECT ` + event + ` FROM ` + p + ` WHERE position = ANY((SELECT $3::text::bigint[])::bigint[])
			UNION ALL ` + within("$4", "$5") + `
			UNION ALL ` + within("$6", "$7") + `
				WHERE (SELECT coalesce(bool_or(pg_visible_in_snapshot(id::xid8, pg_current_snapshot())), false) FROM unnest($8::text::text[]) AS id)
			) AS late ORDER BY position LIMIT $2)
		UNION ALL (SELECT ` + event + ` FROM ` + p + ` WHERE position > $1 ORDER BY position LIMIT $2)`}
}

func (g *postgresGaps) query(frontier int64, missing gaps, limit int) logQuery {
	q := logQuery{text: g.box.sql.read, args: []any{behind(frontier, missing, maxGapsPostgres), limit}, frontier: frontier, missing: missing, limit: limit}
	if len(missing) > 0 {
		settled := missing.upTo(g.settled)
		var singles, runs gaps
		for _, s := range missing[len(settled):] {
			if s.from == s.to {
				singles = append(singles, s)
			} else {
				runs = append(runs, s)
			}
		}
		first, last := func(s span) int64 { return s.from }, func(s span) int64 { return s.to }
		q.text = g.late
		q.args = append(q.args, arrayOf(singles, first), arrayOf(runs, first), arrayOf(runs, last),
			arrayOf(settled, first), arrayOf(settled, last), "{"+strings.Join(g.running, ",")+"}")
	}
	if g.box.rowReader() == nil {
		q.text, q.packed = packed(q.text), true
	}
	if g.plan > 0 {
		q.text += " -- plan " + strconv.Itoa(g.plan)
	}
	return q
}

func (g *postgresGaps) sift(rows []*row, q logQuery, took time.Duration) []*row {
	g.replan(len(rows), took)
	g.seen = snapshot{}
	if len(q.missing) == 0 {
		return rows
	}
	i := slices.IndexFunc(rows, func(r *row) bool { return r.position < 0 })
	if i < 0 {
		return nil // it is there even if the log is empty
	}
	seen, ok := parseSnapshot(rows[i].id)
	rows = slices.Delete(rows, i, i+1)
	late := 0
	for _, r := range rows {
		if r.position <= q.frontier {
			late++
		}
	}
	if late == q.limit { // there may be more, which go before the new ones
		return slices.DeleteFunc(rows, func(r *row) bool { return r.position > q.frontier })
	}
	if ok {
		g.seen = seen
	}
	return rows
}

// parseSnapshot reads PostgreSQL's text form, xmin:xmax:id,id,...
func parseSnapshot(text string) (s snapshot, ok bool) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return s, false
	}
	var err1, err2 error
	s.xmin, err1 = strconv.ParseInt(parts[0], 10, 64)
	s.xmax, err2 = strconv.ParseInt(parts[1], 10, 64)
	if parts[2] != "" {
		s.running = strings.Split(parts[2], ",")
	}
	return s, err1 == nil && err2 == nil
}

// taken forgets the spans whose transactions have ended and that are missing
// still, and finds out which of the others need not be looked for next time.
func (g *postgresGaps) taken() {
	g.settled, g.running = 0, nil
	if g.seen.xmax == 0 {
		return
	}
	var bound int64
	g.cursor.edit(func(missing *gaps) {
		*missing = slices.DeleteFunc(*missing, func(s span) bool { return s.bound != 0 && s.bound <= g.seen.xmin })
		for _, s := range *missing { // bounds rise with positions, and come last
			if s.bound == 0 || s.bound > g.seen.xmax {
				break
			}
			g.settled, bound = s.to, s.bound
		}
	})
	for _, id := range g.seen.running {
		if n, err := strconv.ParseInt(id, 10, 64); err == nil && n < bound {
			g.running = append(g.running, id)
		}
	}
}

// bind gives a bound to the spans up to a position that have none: the id of a
// transaction that began after they were seen.
func (c *cursor) bind(upTo, bound int64) {
	c.edit(func(missing *gaps) {
		for i := range *missing {
			if s := &(*missing)[i]; s.bound == 0 && s.to <= upTo {
				s.bound = bound
			}
		}
	})
}

const (
	slowRead   = 50 * time.Millisecond
	replanRest = 5 * time.Second
)

// replan changes the text of the next read when this one was slow. A statement
// that was prepared while the log was empty may keep the plan that was right
// then, to read the whole table and sort it, and nothing but the statistics that
// a later ANALYZE brings would change that.
func (g *postgresGaps) replan(rows int, took time.Duration) {
	if rows > 0 && took > slowRead && time.Since(g.replanned) > replanRest {
		g.plan++
		g.replanned = time.Now()
	}
}
