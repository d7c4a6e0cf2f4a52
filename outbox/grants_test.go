package outbox_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"strings"
	"testing"
	"time"

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

// That positions have begun again must be seen also where there is a schema that
// the user may not look into.
func TestRestartIsSeenBesideASchemaWithoutUsage(t *testing.T) {
	db := testdb.New(t, outbox.Postgres)
	box := newBox(t, db)
	to := newSink()
	stop := start(t, box.Relay(to))
	enqueue(t, box, "orders", msg("1", ""), msg("2", ""))
	to.awaitCount(t, 2)
	require.NoError(t, stop())
	for _, statement := range []string{
		"CREATE SCHEMA closed", "CREATE SEQUENCE closed.numbers",
		"TRUNCATE millrace_outbox RESTART IDENTITY", "SELECT nextval('millrace_outbox_position_seq')",
	} {
		_, err := db.Exec(statement)
		require.NoError(t, err, statement)
	}
	all := "SELECT, INSERT, UPDATE, DELETE ON millrace_outbox"
	runner := restricted(t, db, all, all+"_scheduled", all+"_parked", all+"_relay", "SELECT ON millrace_outbox_position_seq")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := outbox.New(runner.DB, runner.Dialect).Relay(to).Run(ctx)
	require.ErrorContains(t, err, "positions have begun again below 2, up to which all is published")
}
