package outbox

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mysqlGaps tells by a look at uncommitted rows who may still fill a gap: the row
// of an open transaction is there, one that was rolled back is not. Only between
// taking its position and writing its row does an INSERT show nothing. So what
// is not there is suspected at first, and forgotten if that is so again after a
// time that no INSERT can take: twice the server's limit for waiting for a lock,
// and a minute at least.
type mysqlGaps struct {
	*term
	patience time.Duration // see above; 0: not known yet
	probed   time.Time
	contact  time.Time // when a read last succeeded
}

const (
	probeEvery  = 250 * time.Millisecond
	probeAfter  = time.Second // that a span is missing, before it is probed
	probeSpans  = 5000        // of one statement
	lostContact = 5 * time.Second
)

// patience is how long a gap is suspected, given how long a statement may wait
// for a lock. It is a variable for tests.
var patience = func(lockWait time.Duration) time.Duration { return max(time.Minute, 2*lockWait) }

func newMySQLGaps(t *term) *mysqlGaps { return &mysqlGaps{term: t} }

// query is text throughout, for a statement with parameters takes a round trip
// more. Positions rise through it, so late rows come first.
func (g *mysqlGaps) query(frontier int64, missing gaps, limit int) logQuery {
	g.probe(missing)
	var b strings.Builder
	b.WriteString("SELECT position, id, topic, `key`, metadata, payload FROM ")
	b.WriteString(g.box.sql.prefix)
	b.WriteString(" WHERE position > ")
	b.WriteString(strconv.FormatInt(behind(frontier, missing, maxGapsMySQL), 10))
	if len(missing) > 0 {
		b.WriteString(" OR ")
		writeSpans(&b, missing)
	}
	b.WriteString(" ORDER BY position LIMIT ")
	b.WriteString(strconv.Itoa(limit))
	return logQuery{text: b.String(), frontier: frontier, missing: missing, limit: limit}
}

// writeSpans writes the condition that position is in one of spans.
func writeSpans(b *strings.Builder, spans gaps) {
	number := func(n int64) { b.WriteString(strconv.FormatInt(n, 10)) }
	b.WriteString("position IN (-1")
	for _, s := range spans {
		if s.from == s.to {
			b.WriteByte(',')
			number(s.from)
		}
	}
	b.WriteByte(')')
	for _, s := range spans {
		if s.from < s.to {
			b.WriteString(" OR position BETWEEN ")
			number(s.from)
			b.WriteString(" AND ")
			number(s.to)
		}
	}
}

// sift notes that the server is there. While it was not, an INSERT may have been
// waiting with it, so that patience begins anew.
func (g *mysqlGaps) sift(rows []*row, _ logQuery, _ time.Duration) []*row {
	now := time.Now()
	if now.Sub(g.contact) > lostContact {
		g.cursor.edit(func(missing *gaps) {
			for i := range *missing {
				if s := &(*missing)[i]; !s.suspected.IsZero() {
					s.suspected = now
				}
			}
		})
	}
	g.contact = now
	return rows
}

func (*mysqlGaps) taken() {}

// probe finds out about the spans that have been missing for a while.
func (g *mysqlGaps) probe(missing gaps) {
	if time.Since(g.probed) < probeEvery {
		return
	}
	g.probed = time.Now()
	var due gaps
	for _, s := range missing {
		if s.suspected.IsZero() && time.Since(s.seen) > probeAfter || !s.suspected.IsZero() && time.Since(s.suspected) > g.patience {
			due = append(due, s)
		}
	}
	if len(due) == 0 {
		return
	}
	if err := g.probeAll(due); err != nil {
		g.databaseError("look for missing positions", err)
	}
}

func (g *mysqlGaps) probeAll(due gaps) error {
	ctx, cancel := context.WithTimeout(g.work, g.cfg.lease/2)
	defer cancel()
	if g.patience == 0 {
		var seconds int
		if err := g.box.db.QueryRowContext(ctx, "SELECT greatest(@@global.innodb_lock_wait_timeout, @@innodb_lock_wait_timeout)").Scan(&seconds); err != nil {
			return err
		}
		g.patience = patience(time.Duration(seconds) * time.Second)
	}
	for chunk := range slices.Chunk(due, probeSpans) {
		written, err := g.written(ctx, chunk)
		if err != nil {
			return err
		}
		g.cursor.probed(chunk, written, g.patience)
	}
	return nil
}

// written returns the positions in spans at which there is a row, of whatever
// transaction.
func (g *mysqlGaps) written(ctx context.Context, spans gaps) ([]int64, error) {
	var b strings.Builder
	b.WriteString("SELECT position FROM ")
	b.WriteString(g.box.sql.prefix)
	b.WriteString(" WHERE ")
	writeSpans(&b, spans)
	b.WriteString(" ORDER BY position")
	tx, err := g.box.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadUncommitted})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	return positions(ctx, tx, b.String())
}

// probed records at which positions of spans there are rows: these, and what
// is missing beside them, are of open transactions. Spans without any are
// suspected, and forgotten if they have been for longer than patience.
func (c *cursor) probed(spans gaps, written []int64, patience time.Duration) {
	asked := make(map[int64]struct{}, len(spans))
	for _, s := range spans {
		asked[s.from] = struct{}{}
	}
	now := time.Now()
	c.edit(func(missing *gaps) {
		*missing = slices.DeleteFunc(*missing, func(s span) bool {
			_, ok := asked[s.from]
			return ok && !s.holds(written) && !s.suspected.IsZero() && now.Sub(s.suspected) > patience
		})
		for i := range *missing {
			s := &(*missing)[i]
			switch _, ok := asked[s.from]; {
			case !ok:
			case s.holds(written):
				s.seen, s.suspected = now, time.Time{}
			case s.suspected.IsZero():
				s.suspected = now
			}
		}
	})
}

// holds reports whether one of the positions, which rise, is in the span.
func (s span) holds(positions []int64) bool {
	i, _ := slices.BinarySearch(positions, s.from)
	return i < len(positions) && positions[i] <= s.to
}
