package outbox

import (
	"slices"
	"strconv"
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
type postgresGaps struct {
	*term
	late      string // the statement for new and late rows together
	horizon   int64  // all transactions below it have ended, as of the last read; 0: nothing follows from it
	plan      int    // see replan
	replanned time.Time
}

func newPostgresGaps(t *term) *postgresGaps {
	event := "position, id, topic, key, metadata, payload"
	p := t.box.sql.prefix
	return &postgresGaps{term: t, late: `SELECT -pg_snapshot_xmin(pg_current_snapshot())::text::bigint, ''::bytea, '', ''::bytea, ''::bytea, ''::bytea
		UNION ALL (SELECT * FROM (
			SELECT ` + event + ` FROM ` + p + ` WHERE position = ANY($3::text::bigint[])
			UNION ALL SELECT l.* FROM unnest($4::text::bigint[], $5::text::bigint[]) AS gap(first, last) CROSS JOIN LATERAL
				(SELECT ` + event + ` FROM ` + p + ` WHERE position BETWEEN gap.first AND gap.last ORDER BY position LIMIT $2) AS l
			) AS late ORDER BY position LIMIT $2)
		UNION ALL (SELECT ` + event + ` FROM ` + p + ` WHERE position > $1 ORDER BY position LIMIT $2)`}
}

func (*postgresGaps) gapless() bool { return false }

func (g *postgresGaps) query(frontier int64, missing gaps) logQuery {
	q := logQuery{text: g.box.sql.read, args: []any{frontier, readBatch}, frontier: frontier, missing: missing, limit: readBatch}
	if len(missing) > 0 {
		q.text = g.late
		var singles, runs gaps
		for _, s := range missing {
			if s.from == s.to {
				singles = append(singles, s)
			} else {
				runs = append(runs, s)
			}
		}
		first, last := func(s span) int64 { return s.from }, func(s span) int64 { return s.to }
		q.args = append(q.args, arrayOf(singles, first), arrayOf(runs, first), arrayOf(runs, last))
	}
	if g.plan > 0 {
		q.text += " -- plan " + strconv.Itoa(g.plan)
	}
	return q
}

func (g *postgresGaps) sift(rows []*row, q logQuery, took time.Duration) []*row {
	g.replan(len(rows), took)
	if len(q.missing) == 0 {
		return rows
	}
	i := slices.IndexFunc(rows, func(r *row) bool { return r.position < 0 })
	if i < 0 {
		return nil // an empty log would have had it
	}
	horizon := -rows[i].position
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
	g.horizon = horizon
	return rows
}

// taken forgets the spans that were asked for, whose transactions have ended, and
// that are missing still.
func (g *postgresGaps) taken() {
	horizon := g.horizon
	if g.horizon = 0; horizon == 0 {
		return
	}
	g.cursor.edit(func(missing *gaps) {
		*missing = slices.DeleteFunc(*missing, func(s span) bool { return s.bound != 0 && s.bound <= horizon })
	})
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
