package outbox

import "time"

// logQuery is one read of the log: what is behind the frontier, and what has
// appeared of the positions that were missing, as of the same moment. Read apart
// from each other, an event could overtake an earlier one of its key that
// committed in between.
type logQuery struct {
	text     string
	args     []any
	frontier int64
	missing  gaps
	limit    int
}

// gapWatch asks for late rows along with new ones, and knows when a missing
// position can't appear any more. Each database has its own.
type gapWatch interface {
	// gapless reports whether positions are commit order.
	gapless() bool
	// query returns the next read.
	query(frontier int64, missing gaps) logQuery
	// sift returns the rows that a read has found and that may be taken. took is how
	// long the read took.
	sift(rows []*row, q logQuery, took time.Duration) []*row
	// taken is called when they are. It forgets missing positions of which the read
	// has shown that they stay so: not before, or a late row might be neither missing
	// nor in hand when progress is recorded.
	taken()
}

func newGapWatch(t *term) gapWatch {
	switch t.box.sql.dialect {
	case Postgres:
		return newPostgresGaps(t)
	case MySQL:
		return newMySQLGaps(t)
	}
	return noGaps{t.box.sql.read}
}

// noGaps is for a database with one writer at a time.
type noGaps struct{ read string }

func (noGaps) gapless() bool { return true }

func (g noGaps) query(frontier int64, _ gaps) logQuery {
	return logQuery{text: g.read, args: []any{frontier, readBatch}, limit: readBatch}
}

func (noGaps) sift(rows []*row, _ logQuery, _ time.Duration) []*row { return rows }

func (noGaps) taken() {}
