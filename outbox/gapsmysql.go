package outbox

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mysqlGaps tells by a locking read who may still fill a gap: the row of an open
// transaction is locked, one that was rolled back is not there. Only between
// taking its position and writing its row does an INSERT show neither. So what
// is neither locked nor there is suspected at first, and forgotten if that is so
// again after a time that no INSERT can take: twice the server's limit for
// waiting for a lock, and a minute at least.
type mysqlGaps struct {
	*term
	patience time.Duration // see above; 0: not known yet
	probed   time.Time
}

const (
	probeEvery = 250 * time.Millisecond
	probeAfter = time.Second // that a span is missing, before it is probed
	probeSpans = 200         // of one statement
)

// patience is how long a gap is suspected, given how long a statement may wait
// for a lock. It is a variable for tests.
var patience = func(lockWait time.Duration) time.Duration { return max(time.Minute, 2*lockWait) }

func newMySQLGaps(t *term) *mysqlGaps { return &mysqlGaps{term: t} }

func (*mysqlGaps) gapless() bool { return false }

// query is text throughout, for a statement with parameters takes a round trip
// more. Positions rise through it, so late rows come first.
func (g *mysqlGaps) query(frontier int64, missing gaps) logQuery {
	g.probe(missing)
	var b strings.Builder
	b.WriteString("SELECT position, id, topic, `key`, metadata, payload FROM ")
	b.WriteString(g.box.sql.prefix)
	b.WriteString(" WHERE position > ")
	b.WriteString(strconv.FormatInt(frontier, 10))
	if len(missing) > 0 {
		b.WriteString(" OR ")
		writeSpans(&b, missing)
	}
	b.WriteString(" ORDER BY position LIMIT ")
	b.WriteString(strconv.Itoa(readBatch))
	return logQuery{text: b.String(), frontier: frontier, missing: missing, limit: readBatch}
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

func (*mysqlGaps) sift(rows []*row, _ logQuery, _ time.Duration) []*row { return rows }

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
		if err := g.box.db.QueryRowContext(ctx, "SELECT @@global.innodb_lock_wait_timeout").Scan(&seconds); err != nil {
			return err
		}
		g.patience = patience(time.Duration(seconds) * time.Second)
	}
	for chunk := range slices.Chunk(due, probeSpans) {
		if err := g.probeSpans(ctx, chunk); err != nil {
			return err
		}
	}
	return nil
}

// probeSpans asks about several spans at once, and about halves of them if a row
// among them is locked.
func (g *mysqlGaps) probeSpans(ctx context.Context, spans gaps) error {
	there, err := g.lockedOrThere(ctx, spans)
	switch {
	case err != nil:
		return err
	case !there:
		g.cursor.unlocked(spans, g.patience)
	case len(spans) == 1:
		g.cursor.locked(spans[0])
	default:
		half := len(spans) / 2
		if err := g.probeSpans(ctx, spans[:half]); err != nil {
			return err
		}
		return g.probeSpans(ctx, spans[half:])
	}
	return nil
}

// lockedOrThere reports whether a row in spans has been written by anybody,
// whose transaction may be open.
func (g *mysqlGaps) lockedOrThere(ctx context.Context, spans gaps) (bool, error) {
	var b strings.Builder
	b.WriteString("SELECT position FROM ")
	b.WriteString(g.box.sql.prefix)
	b.WriteString(" WHERE ")
	writeSpans(&b, spans)
	b.WriteString(" LIMIT 1 FOR UPDATE NOWAIT")
	tx, err := g.box.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback() }()
	rows, err := tx.QueryContext(ctx, b.String())
	if err == nil {
		there := rows.Next()
		err = rows.Err()
		_ = rows.Close()
		if err == nil {
			return there, nil
		}
	}
	if g.box.sql.dialect.IsBusy(err) {
		return true, nil
	}
	return false, fmt.Errorf("read with a lock: %w", err)
}

// locked records that the transaction of a span is open.
func (c *cursor) locked(s span) {
	c.edit(func(missing *gaps) {
		if i, ok := missing.find(s.from); ok {
			m := &(*missing)[i]
			m.seen, m.suspected = time.Now(), time.Time{}
		}
	})
}

// unlocked records that nobody holds a row in spans, and forgets those for which
// that has been so for longer than patience.
func (c *cursor) unlocked(spans gaps, patience time.Duration) {
	asked := make(map[int64]struct{}, len(spans))
	for _, s := range spans {
		asked[s.from] = struct{}{}
	}
	c.edit(func(missing *gaps) {
		kept := (*missing)[:0]
		for _, s := range *missing {
			if _, ok := asked[s.from]; ok {
				if s.suspected.IsZero() {
					s.suspected = time.Now()
				} else if time.Since(s.suspected) > patience {
					continue
				}
			}
			kept = append(kept, s)
		}
		*missing = kept
	})
}
