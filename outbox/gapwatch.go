package outbox

import (
	"math"
	"time"
)

// logQuery is one read of the log: what is behind the frontier, and what has
// appeared of the positions that were missing, as of the same moment. Read apart
// from each other, an event could overtake an earlier one of its key that
// committed in between.
type logQuery struct {
	text     string
	args     []any
	packed   bool // text was made by packed
	frontier int64
	missing  gaps
	limit    int
}

// gapWatch asks for late rows along with new ones, and knows when a missing
// position can't appear any more. Each database has its own.
type gapWatch interface {
	// query returns the next read, of at most limit new rows and as many late ones.
	query(frontier int64, missing gaps, limit int) logQuery
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

func (g noGaps) query(frontier int64, _ gaps, limit int) logQuery {
	return logQuery{text: g.read, args: []any{frontier, limit}, limit: limit}
}

func (noGaps) sift(rows []*row, _ logQuery, _ time.Duration) []*row { return rows }

func (noGaps) taken() {}

// These bound the runs of missing positions that are remembered; a read takes
// up to a second then.
const (
	maxGapsPostgres = 50_000
	maxGapsMySQL    = 30_000
)

// behind returns behind which position new rows are read: none when too much is
// missing already, until some of it has come or is forgotten.
func behind(frontier int64, missing gaps, most int) int64 {
	if len(missing) >= most {
		return math.MaxInt64
	}
	return frontier
}
