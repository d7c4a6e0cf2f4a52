package idempotency_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/testdb"
)

func TestWrongArgumentsAreReportedByEveryUse(t *testing.T) {
	for _, inbox := range []*idempotency.Inbox{
		idempotency.NewInbox(nil, idempotency.SQLite),
		idempotency.NewInbox(newDB(t), idempotency.Dialect{}),
		idempotency.NewInbox(newDB(t), idempotency.SQLite, idempotency.Table("1x")),
		idempotency.NewInbox(newDB(t), idempotency.SQLite, idempotency.Retention(0)),
		idempotency.NewInbox(newDB(t), idempotency.SQLite, idempotency.Recent(-1)),
	} {
		const want = "idempotency: NewInbox: "
		require.ErrorContains(t, inbox.Migrate(t.Context()), want)
		require.ErrorContains(t, inbox.Run(t.Context()), want)
		require.ErrorContains(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")), want)
		_, err := inbox.Prune(t.Context())
		require.ErrorContains(t, err, want)
		_, err = inbox.Stats(t.Context())
		require.ErrorContains(t, err, want)
		_, err = inbox.Batch(t.Context(), nil, nil)
		require.ErrorContains(t, err, want)
		_, err = inbox.Mark(t.Context(), nil, mark("e1"))
		require.ErrorContains(t, err, want)
		require.Empty(t, inbox.Schema())
	}
}

func TestMissingTableIsAClearError(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		addEffects(t, db.DB)
		inbox := idempotency.NewInbox(db.DB, db.Dialect)
		require.ErrorContains(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")), "call Migrate, or apply Schema")
		_, err := inbox.Batch(t.Context(), []idempotency.Mark{mark("e1")}, nil)
		require.ErrorContains(t, err, "call Migrate, or apply Schema")
		_, err = inbox.Prune(t.Context())
		require.ErrorContains(t, err, "call Migrate, or apply Schema")
	})
}

func TestMigrateBySeveralProcessesAtOnce(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		var wg sync.WaitGroup
		for range 6 {
			inbox := idempotency.NewInbox(db.Open(t), db.Dialect)
			wg.Go(func() {
				if err := inbox.Migrate(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		apply(t, db.DB, idempotency.NewInbox(db.DB, db.Dialect).Schema())
	})
}

func apply(t *testing.T, db *sql.DB, schema string) {
	t.Helper()
	for statement := range strings.SplitSeq(strings.TrimSpace(schema), ";\n") {
		if strings.TrimSpace(statement) != "" {
			_, err := db.Exec(strings.TrimSuffix(statement, ";"))
			require.NoError(t, err, statement)
		}
	}
}

// The text for other tools makes what Migrate makes, and Migrate takes it as done.
func TestSchemaForOtherToolsIsEnough(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		addEffects(t, db.DB)
		inbox := idempotency.NewInbox(db.DB, db.Dialect)
		apply(t, db.DB, inbox.Schema())
		require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")))
		require.NoError(t, inbox.Migrate(t.Context()))
		require.Equal(t, 1, marks(t, db.DB))
	})
}

func TestTableInASchema(t *testing.T) {
	testdb.Each(t, func(t *testing.T, db testdb.DB) {
		addEffects(t, db.DB)
		table := "app.inbox"
		switch db.Dialect {
		case idempotency.Postgres:
			_, err := db.Exec("CREATE SCHEMA app")
			require.NoError(t, err)
		case idempotency.MySQL:
			var name string
			require.NoError(t, db.QueryRow("SELECT DATABASE()").Scan(&name))
			table = name + "_app.inbox"
			_, err := db.Exec("CREATE DATABASE " + name + "_app")
			require.NoError(t, err)
			t.Cleanup(func() { _, err := db.Exec("DROP DATABASE " + name + "_app"); require.NoError(t, err) })
		default:
			db.SetMaxOpenConns(1)
			_, err := db.Exec("ATTACH ? AS app", filepath.Join(t.TempDir(), "app.db"))
			require.NoError(t, err)
		}
		inbox := migrated(t, db, idempotency.Table(table))
		require.NoError(t, inbox.Migrate(t.Context()))
		require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")))
		require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")))
		duplicate, err := inbox.Batch(t.Context(), []idempotency.Mark{mark("e1"), mark("e2")}, func(context.Context, *sql.Tx, int) error { return nil })
		require.NoError(t, err)
		require.Equal(t, []bool{true, false}, duplicate)
		_, err = inbox.Prune(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, count(t, db.DB, table))
		require.Equal(t, 1, effects(t, db.DB))
	})
}

var strangeIDs = []string{
	"a", "A", "a ", " a", "á", "a\u0301", "ａ", "ß", "ss", "a\x00", "a\x00b", "\xff\xfe", "\x00", "'", `"`, `\`, `\'`, "%", "_", "?", "$1", "{}", `a","b`,
	"0", "00", "0x41", "-", "--", "1.0", "\t", "\n", "a\n", strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("x", 257),
	strings.Repeat("x", 5000), strings.Repeat("x", 100_000), strings.Repeat("é", 2000), "sha256:", "sha256:x",
	"sha256:b7f0a5bd9d9dc6fe8c1b6e8d3d7d2a4a2f61d6a9b1f6cd37a86a0a36e0b7c1f2", "NULL", "null", "😀", "\u2028",
}

// Ids of any bytes and any length are told apart, by themselves and in batches,
// from memory and from the table.
func TestStrangeIDsAreToldApart(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		var all []idempotency.Mark
		for _, id := range strangeIDs {
			all = append(all, mark(id), idempotency.Mark{Consumer: id, ID: "1"}, idempotency.Mark{Consumer: "c", Source: id, ID: "1"})
		}
		nothing := func(context.Context, *sql.Tx) error { return nil }
		half := len(all) / 2
		for _, m := range all[:half] {
			duplicate, err := inbox.Transact(t.Context(), m, nothing)
			require.NoError(t, err)
			require.False(t, duplicate, "%q", m)
		}
		duplicate, err := inbox.Batch(t.Context(), all[half:], func(context.Context, *sql.Tx, int) error { return nil })
		require.NoError(t, err)
		require.NotContains(t, duplicate, true)
		require.Equal(t, len(all), marks(t, db.DB))

		other := idempotency.NewInbox(db.DB, db.Dialect, idempotency.Recent(0))
		tx, err := db.Begin()
		require.NoError(t, err)
		defer tx.Rollback()
		for _, m := range all {
			seen, err := other.Seen(t.Context(), tx, m)
			require.NoError(t, err)
			require.True(t, seen, "%q", m)
			seen, err = other.Seen(t.Context(), tx, idempotency.Mark{Consumer: m.Consumer, Source: m.Source, ID: m.ID + "~"})
			require.NoError(t, err)
			require.False(t, seen, "%q", m)
		}
		require.NoError(t, tx.Rollback())
		duplicate, err = other.Batch(t.Context(), all, nil)
		require.NoError(t, err)
		require.NotContains(t, duplicate, false)
	})
}

// The stored form is a contract: marks of an older version must be found.
func TestMarksAreStoredAsEver(t *testing.T) {
	type row struct{ Consumer, Source, ID string }
	read := func(file string) (rows []row) {
		text, err := os.ReadFile(filepath.Join("testdata", "v1", file))
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			require.Len(t, f, 3, line)
			for i, quoted := range f {
				f[i], err = strconv.Unquote(quoted)
				require.NoError(t, err)
			}
			rows = append(rows, row{f[0], f[1], f[2]})
		}
		return rows
	}
	given, stored := read("marks.tsv"), read("stored.tsv")
	require.Len(t, stored, len(given))
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		for _, m := range given {
			_, err := inbox.Transact(t.Context(), idempotency.Mark(m), func(context.Context, *sql.Tx) error { return nil })
			require.NoError(t, err)
		}
		rows, err := db.Query("SELECT consumer, source, id, handled_at FROM millrace_inbox")
		require.NoError(t, err)
		defer rows.Close()
		var got []row
		for rows.Next() {
			var r row
			var at int64
			require.NoError(t, rows.Scan(&r.Consumer, &r.Source, &r.ID, &at))
			require.WithinDuration(t, time.Now(), time.UnixMilli(at), time.Minute)
			got = append(got, r)
		}
		require.NoError(t, rows.Err())
		require.ElementsMatch(t, stored, got)
	})
}

// A look by those who own the transaction, and a mark that is theirs.
func TestMarkAndSeenInATransactionOfTheCaller(t *testing.T) {
	each(t, func(t *testing.T, db testdb.DB, inbox *idempotency.Inbox) {
		ctx := t.Context()
		in := func(commit bool, fn func(tx *sql.Tx)) {
			tx, err := db.BeginTx(ctx, nil)
			require.NoError(t, err)
			fn(tx)
			if commit {
				require.NoError(t, tx.Commit())
			} else {
				require.NoError(t, tx.Rollback())
			}
		}
		check := func(tx *sql.Tx, wantSeen, wantFresh bool) {
			seen, err := inbox.Seen(ctx, tx, mark("e1"))
			require.NoError(t, err)
			require.Equal(t, wantSeen, seen)
			fresh, err := inbox.Mark(ctx, tx, mark("e1"))
			require.NoError(t, err)
			require.Equal(t, wantFresh, fresh)
		}
		in(false, func(tx *sql.Tx) { check(tx, false, true); check(tx, true, false) })
		in(true, func(tx *sql.Tx) { check(tx, false, true) })
		in(true, func(tx *sql.Tx) {
			check(tx, true, false)
			require.NoError(t, write(ctx, tx, "the transaction goes on"))
		})
		require.Equal(t, 1, marks(t, db.DB))
		require.Equal(t, 1, effects(t, db.DB))
		duplicate, err := inbox.Transact(ctx, mark("e1"), nil)
		require.NoError(t, err)
		require.True(t, duplicate)
		in(false, func(tx *sql.Tx) { check(tx, true, false) })
		_, err = inbox.Mark(ctx, nil, idempotency.Mark{})
		require.ErrorContains(t, err, "the consumer is empty")
	})
}

// A step of the schema's history never changes once it is published.
func TestSchemaIsAsEver(t *testing.T) {
	for _, d := range testdb.Dialects {
		file := filepath.Join("testdata", "v1", "schema_"+d.String()+".sql")
		want, err := os.ReadFile(file)
		require.NoError(t, err)
		inbox := idempotency.NewInbox(newDB(t), d, idempotency.Table("app.inbox"))
		require.Equal(t, string(want), inbox.Schema())
	}
}
