package idempotency_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/idempotency"
	"github.com/millrace-go/millrace/internal/testdb"
)

// The rights that docs/idempotency.md names are enough to run, also to call
// Migrate when there is nothing to do.
func TestLeastPrivileges(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		addEffects(t, db.DB)
		migrated(t, db)
		fillMarks(t, db, 10, 31*24*time.Hour)
		user := asUser(t, db, "GRANT SELECT, INSERT, DELETE ON millrace_inbox TO {user}", "GRANT SELECT ON millrace_migrations TO {user}", "GRANT SELECT, INSERT ON effects TO {user}")
		inbox := idempotency.NewInbox(user.DB, user.Dialect)
		require.NoError(t, inbox.Migrate(t.Context()))
		for range 2 {
			require.NoError(t, idempotency.Once(inbox, effect)(t.Context(), event("e1")))
		}
		_, err := inbox.Batch(t.Context(), batchOf("e1", "e2", "e3"), func(ctx context.Context, tx *sql.Tx, n int) error {
			if n == 1 {
				return context.DeadlineExceeded
			}
			return nil
		})
		require.ErrorAs(t, err, new(*idempotency.BatchError))
		n, err := inbox.Prune(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 10, n)
		_, err = inbox.Stats(t.Context())
		require.NoError(t, err)
		require.Equal(t, 2, marks(t, db.DB))
		_, err = user.Exec("DROP TABLE millrace_inbox")
		require.Error(t, err)
		require.Error(t, idempotency.NewInbox(user.DB, user.Dialect, idempotency.Table("another")).Migrate(t.Context()))
	})
}

// Migrating needs to create tables, and on PostgreSQL to own the table.
func TestPrivilegesToMigrate(t *testing.T) {
	testdb.EachServer(t, func(t *testing.T, db testdb.DB) {
		grants := []string{"GRANT CREATE, USAGE ON SCHEMA public TO {user}"}
		if db.Dialect == idempotency.MySQL {
			grants = []string{"GRANT CREATE, INDEX, SELECT, INSERT ON {database}.* TO {user}"}
		}
		user := asUser(t, db, grants...)
		require.NoError(t, idempotency.NewInbox(user.DB, user.Dialect).Migrate(t.Context()))
	})
}

// asUser returns db as a new user with nothing but what statements grant.
func asUser(t *testing.T, db testdb.DB, statements ...string) testdb.DB {
	t.Helper()
	name := "u_" + strings.ToLower(rand.Text()[:12])
	user, create, drop := name, "CREATE ROLE "+name+" LOGIN PASSWORD 'secret'", []string{"DROP OWNED BY " + name + " CASCADE", "DROP ROLE " + name}
	if db.Dialect == idempotency.MySQL {
		user = name + "@'%'"
		create, drop = "CREATE USER "+user+" IDENTIFIED BY 'secret'", []string{"DROP USER " + user}
	}
	admin := db.DB
	var database string
	require.NoError(t, admin.QueryRow(map[idempotency.Dialect]string{
		idempotency.Postgres: "SELECT current_database()", idempotency.MySQL: "SELECT DATABASE()"}[db.Dialect]).Scan(&database))
	for _, s := range append([]string{create}, statements...) {
		_, err := admin.Exec(strings.NewReplacer("{user}", user, "{database}", database).Replace(s))
		require.NoError(t, err, s)
	}
	if db.Dialect == idempotency.Postgres {
		u, err := url.Parse(db.DSN)
		require.NoError(t, err)
		u.User = url.UserPassword(name, "secret")
		db.DSN = u.String()
	} else {
		_, rest, _ := strings.Cut(db.DSN, "@")
		db.DSN = name + ":secret@" + rest
	}
	db.DB = db.Open(t)
	t.Cleanup(func() {
		require.NoError(t, db.Close())
		for _, s := range drop {
			_, err := admin.Exec(s)
			require.NoError(t, err)
		}
	})
	return db
}
