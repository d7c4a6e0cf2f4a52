package marks

import (
	"slices"
	"strings"

	"github.com/millrace-go/millrace/internal/dialect"
)

// Chunk is how many keys one statement about several may have.
func (s *Statements) Chunk() int {
	switch s.Dialect {
	case dialect.Postgres:
		return 1 << 16 // three arrays
	case dialect.MySQL:
		return 1000
	default:
		return 200 // modernc.org/sqlite looks each parameter up in a list
	}
}

// MarkMany writes up to Chunk marks. On PostgreSQL and SQLite it returns the
// keys of those that were new; on MySQL one that is there is an error.
func (s *Statements) MarkMany(keys []Key, at int64) (statement string, args []any) {
	const columns = ` (consumer, source, id, handled_at) `
	if s.Dialect == dialect.Postgres {
		return `INSERT INTO ` + s.Table + columns + `SELECT c, s, i, $4::bigint FROM ` + unnest +
			` ON CONFLICT DO NOTHING RETURNING consumer, source, id`, append(arrays(keys), at)
	}
	args = make([]any, 0, 4*len(keys))
	for _, k := range keys {
		args = append(args, k.Consumer, k.Source, k.ID, at)
	}
	statement = `INSERT INTO ` + s.Table + columns + `VALUES ` + list("(?,?,?,?)", ",", len(keys))
	if s.Dialect == dialect.SQLite {
		statement += ` ON CONFLICT DO NOTHING RETURNING consumer, source, id`
	}
	return statement, args
}

// StrictMany is Strict for up to Chunk marks, on PostgreSQL: if one of them is
// there it fails.
func (s *Statements) StrictMany(keys []Key, at int64) (statement string, args []any) {
	return `INSERT INTO ` + s.Table + ` (consumer, source, id, handled_at) SELECT c, s, i, $4::bigint FROM ` + unnest, append(arrays(keys), at)
}

// SeenMany returns those of up to Chunk keys that have marks.
func (s *Statements) SeenMany(keys []Key) (statement string, args []any) {
	where, args := s.where(keys)
	return `SELECT consumer, source, id FROM ` + s.Table + where, args
}

// UnmarkMany deletes up to Chunk marks.
func (s *Statements) UnmarkMany(keys []Key) (statement string, args []any) {
	where, args := s.where(keys)
	return `DELETE FROM ` + s.Table + where, args
}

const unnest = `unnest($1::text[], $2::text[], $3::text[]) AS u (c, s, i)`

func (s *Statements) where(keys []Key) (string, []any) {
	if s.Dialect == dialect.Postgres {
		return ` WHERE (consumer, source, id) IN (SELECT c, s, i FROM ` + unnest + `)`, arrays(keys)
	}
	args := make([]any, 0, 3*len(keys))
	for _, k := range keys {
		args = append(args, k.Consumer, k.Source, k.ID)
	}
	if s.Dialect == dialect.MySQL { // lists of rows are no ranges of an index everywhere
		return ` WHERE ` + list("(consumer = ? AND source = ? AND id = ?)", " OR ", len(keys)), args
	}
	return ` WHERE (consumer, source, id) IN (VALUES ` + list("(?,?,?)", ",", len(keys)) + `)`, args
}

func list(item, separator string, n int) string {
	return strings.TrimSuffix(strings.Repeat(item+separator, n), separator)
}

// arrays returns the columns of keys as the text of three arrays, which every
// driver of PostgreSQL can send.
func arrays(keys []Key) []any {
	column := func(of func(Key) string) string {
		var b strings.Builder
		b.Grow(len(keys) * 40)
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteByte('"')
			_, _ = quote.WriteString(&b, of(k)) // a Builder takes everything
			b.WriteByte('"')
		}
		b.WriteByte('}')
		return b.String()
	}
	return []any{
		column(func(k Key) string { return k.Consumer }),
		column(func(k Key) string { return k.Source }),
		column(func(k Key) string { return k.ID }),
	}
}

var quote = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// Compare orders keys: that in which all transactions mark them, so that two with
// the same keys don't wait for each other.
func Compare(a, b Key) int {
	if c := strings.Compare(a.Consumer, b.Consumer); c != 0 {
		return c
	}
	if c := strings.Compare(a.Source, b.Source); c != 0 {
		return c
	}
	return strings.Compare(a.ID, b.ID)
}

// Chunks calls f with keys in pieces of at most size.
func Chunks(keys []Key, size int, f func(chunk []Key) error) error {
	for chunk := range slices.Chunk(keys, size) {
		if err := f(chunk); err != nil {
			return err
		}
	}
	return nil
}

// Which says which of keys, which are in order, query returns some of.
func Which(keys []Key, size int, query func(chunk []Key) ([]Key, error)) ([]bool, error) {
	which := make([]bool, len(keys))
	err := Chunks(keys, size, func(chunk []Key) error {
		some, err := query(chunk)
		for _, k := range some {
			if n, ok := slices.BinarySearchFunc(keys, k, Compare); ok {
				which[n] = true
			}
		}
		return err
	})
	return which, err
}
