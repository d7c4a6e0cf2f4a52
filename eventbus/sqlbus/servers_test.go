package sqlbus

import (
	"context"
	"crypto/rand"
	"database/sql"
	"net/url"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the database/sql driver
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/internal/testserver"
)

// servers are those that a test of servers runs on.
var servers = []string{testserver.Postgres, testserver.MySQL}

// onServers runs test with the URL of an empty database on each of them.
func onServers(t *testing.T, test func(t *testing.T, url string)) {
	for _, name := range servers {
		t.Run(name, func(t *testing.T) { test(t, newDatabase(t, name)) })
	}
}

// newDatabase returns the URL of a database that is dropped when t ends.
func newDatabase(t testing.TB, server string) string {
	t.Helper()
	u, err := url.Parse(testserver.URL(t, server))
	require.NoError(t, err)
	name := "millrace_" + strings.ToLower(rand.Text())
	drop := "DROP DATABASE " + name
	if server == testserver.Postgres {
		drop += " WITH (FORCE)"
	}
	admin := rawDB(t, u.String())
	_, err = admin.Exec("CREATE DATABASE " + name)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := admin.Exec(drop)
		require.NoError(t, err)
		require.NoError(t, admin.Close())
	})
	u.Path = "/" + name
	return u.String()
}

// rawDB opens what a URL names without the bus.
func rawDB(t testing.TB, rawURL string) *sql.DB {
	t.Helper()
	u, err := url.Parse(rawURL)
	require.NoError(t, err)
	driverName, dsn := "pgx", rawURL
	if u.Scheme == "mysql" {
		password, _ := u.User.Password()
		driverName, dsn = "mysql", u.User.Username()+":"+password+"@tcp("+u.Host+")"+u.Path
	}
	db, err := sql.Open(driverName, dsn)
	require.NoError(t, err)
	return db
}

func openServer(ctx context.Context, rawURL string, c Config) (*Broker, error) {
	if c.Logger == nil {
		c.Logger = quiet()
	}
	if strings.HasPrefix(rawURL, "mysql") {
		return OpenMySQL(ctx, rawURL, c)
	}
	return OpenPostgres(ctx, rawURL, c)
}

func openOn(t testing.TB, rawURL string, c Config) *Broker {
	t.Helper()
	b, err := openServer(t.Context(), rawURL, c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return b
}
