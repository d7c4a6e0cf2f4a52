package outbox_test

import (
	"crypto/rand"
	"database/sql"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/outbox"
)

// restricted returns the same database as a new user, who may do what grants
// say.
func restricted(t *testing.T, db testdb.DB, grants ...string) testdb.DB {
	t.Helper()
	user := "millrace_" + strings.ToLower(rand.Text()[:10])
	name := user
	run := func(statement string) {
		_, err := db.Exec(strings.ReplaceAll(statement, "{user}", name))
		require.NoError(t, err, statement)
	}
	again := db
	if db.Dialect == outbox.Postgres {
		run("CREATE ROLE {user} LOGIN PASSWORD 'secret'")
		t.Cleanup(func() { run("DROP OWNED BY {user}"); run("DROP ROLE {user}") })
		u, err := url.Parse(db.DSN)
		require.NoError(t, err)
		u.User = url.UserPassword(user, "secret")
		again.DSN = u.String()
	} else {
		name = "'" + user + "'@'%'"
		run("CREATE USER {user} IDENTIFIED BY 'secret'")
		t.Cleanup(func() { run("DROP USER {user}") })
		again.DSN = user + ":secret" + db.DSN[strings.Index(db.DSN, "@tcp("):]
	}
	for _, g := range grants {
		run("GRANT " + g + " TO {user}")
	}
	pool, err := sql.Open(again.Driver, again.DSN)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	again.DB = pool
	return again
}

// The privileges are those that docs/outbox.md names.
func TestLeastPrivileges(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		newBox(t, db)
		writer := restricted(t, db, "INSERT ON millrace_outbox", "INSERT ON millrace_outbox_scheduled")
		all := "SELECT, INSERT, UPDATE, DELETE ON millrace_outbox"
		runner := restricted(t, db, all, all+"_scheduled", all+"_parked", all+"_relay")

		box := outbox.New(writer.DB, writer.Dialect)
		m := msg("1", "k")
		later := msg("2", "k")
		later.Metadata["millrace_due"] = "2999-01-01T00:00:00Z"
		enqueue(t, box, "orders", m)
		enqueue(t, box, "orders", msg("3", "k"), later, msg("4", ""))

		to := newSink()
		stop := start(t, outbox.New(runner.DB, runner.Dialect).Relay(to))
		to.awaitCount(t, 3)
		require.NoError(t, stop())
		require.Zero(t, count(t, db, "SELECT count(*) FROM millrace_outbox"))
		require.NoError(t, outbox.New(db.DB, db.Dialect).Migrate(t.Context()))
	})
}
