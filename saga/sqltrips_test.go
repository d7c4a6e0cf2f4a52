package saga_test

import (
	"database/sql"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/roundtrips"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/saga"
)

// What the documentation of SQLStore says.
func TestRoundTrips(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		s, trips := newCounted(t, db)
		of := func(f func() error) int64 {
			before := trips.Load()
			require.NoError(t, f())
			return trips.Load() - before
		}
		commit := func(revision int64, change func(*saga.Commit)) int64 {
			c := transition("1", revision)
			if change != nil {
				change(&c)
			}
			return of(func() error { return s.Commit(t.Context(), c) })
		}
		commit(1, nil) // prepares the statements
		commit(2, nil)
		more := int64(0)
		if db.Dialect == saga.MySQL {
			more = 1 // the history
		}
		require.EqualValues(t, 5+more, commit(3, nil), "begin, mark, instance and history, message, commit")
		require.EqualValues(t, 4+more, commit(4, func(c *saga.Commit) { c.EventID = "" }))
		require.EqualValues(t, 4+more, commit(5, func(c *saga.Commit) { c.Messages = nil }))
		require.EqualValues(t, 6+more, commit(6, func(c *saga.Commit) {
			c.Messages = append(c.Messages, saga.Message{Topic: "other", Message: message.NewMessage("2", nil)})
		}))
		for what, f := range map[string]func() error{
			"load":    func() error { _, err := s.Load(t.Context(), "s", "1"); return err },
			"history": func() error { _, err := s.History(t.Context(), "s", "1"); return err },
			"list":    func() error { _, err := s.List(t.Context(), saga.Query{Saga: "s"}); return err },
			"count":   func() error { _, err := s.Count(t.Context(), "s"); return err },
			"pin":     func() error { _, err := s.Pin(t.Context(), "s", 1, "f"); return err },
		} {
			require.NoError(t, f())
			require.EqualValues(t, 1, of(f), what)
		}
	})
}

// newCounted returns a store on one connection whose round trips are counted.
func newCounted(t *testing.T, db testdb.DB) (stored, *roundtrips.Counter) {
	t.Helper()
	n := &roundtrips.Counter{}
	if db.Dialect == saga.Postgres {
		c, err := pgx.ParseConfig(db.DSN)
		require.NoError(t, err)
		c.DialFunc = n.Dial
		db.DB = stdlib.OpenDB(*c)
	} else {
		c, err := mysql.ParseDSN(db.DSN)
		require.NoError(t, err)
		c.DialFunc, c.InterpolateParams = n.Dial, true
		connector, err := mysql.NewConnector(c)
		require.NoError(t, err)
		db.DB = sql.OpenDB(connector)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return newStored(t, db), n
}
