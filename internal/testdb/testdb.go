// Package testdb gives tests an empty database of each kind that the library
// supports. SQLite is always there; the others are found by package testserver.
package testdb

import (
	"crypto/rand"
	"database/sql"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql" // the database/sql driver of MySQL
	_ "github.com/jackc/pgx/v5/stdlib" // of PostgreSQL
	"github.com/stretchr/testify/require"
	_ "modernc.org/sqlite" // of SQLite

	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/testserver"
)

// DB is an empty database that is dropped when its test ends.
type DB struct {
	*sql.DB
	Dialect dialect.Dialect
	// Driver and DSN are for sql.Open. For Postgres DSN is a URL that pgx takes too.
	Driver, DSN string
}

// Open returns another pool on the same database, closed when t ends.
func (db DB) Open(t testing.TB) *sql.DB {
	t.Helper()
	pool, err := sql.Open(db.Driver, db.DSN)
	require.NoError(t, err)
	pool.SetMaxIdleConns(16)
	t.Cleanup(func() { require.NoError(t, pool.Close()) })
	return pool
}

// Dialects are those that Each runs on, in order.
var Dialects = []dialect.Dialect{dialect.SQLite, dialect.Postgres, dialect.MySQL}

// Each runs test as a subtest for each dialect.
func Each(t *testing.T, test func(t *testing.T, db DB)) {
	t.Helper()
	for _, d := range Dialects {
		t.Run(d.String(), func(t *testing.T) { test(t, New(t, d)) })
	}
}

// EachServer is Each without SQLite.
func EachServer(t *testing.T, test func(t *testing.T, db DB)) {
	t.Helper()
	for _, d := range Dialects[1:] {
		t.Run(d.String(), func(t *testing.T) { test(t, New(t, d)) })
	}
}

// New returns an empty database. It skips t, or fails it, if the server is not
// there.
func New(t testing.TB, d dialect.Dialect) DB {
	t.Helper()
	db := DB{Dialect: d}
	switch d {
	case dialect.SQLite:
		db.Driver, db.DSN = "sqlite", "file:"+filepath.Join(t.TempDir(), "test.db")+
			"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"
	case dialect.Postgres:
		db.Driver, db.DSN = "pgx", create(t, testserver.Postgres)
	case dialect.MySQL:
		db.Driver, db.DSN = "mysql", mysqlDSN(t, create(t, testserver.MySQL))
	default:
		t.Fatalf("no database of dialect %v", d)
	}
	db.DB = db.Open(t)
	return db
}

// create makes a database on a server and returns its URL.
func create(t testing.TB, server string) string {
	t.Helper()
	base := testserver.URL(t, server)
	u, err := url.Parse(base)
	require.NoError(t, err)
	name := "millrace_" + strings.ToLower(rand.Text())
	admin := func(statement string) {
		driver, dsn := "pgx", base
		if server == testserver.MySQL {
			driver, dsn = "mysql", mysqlDSN(t, base)
		} else {
			statement = strings.Replace(statement, "#force", "WITH (FORCE)", 1)
		}
		db, err := sql.Open(driver, dsn)
		require.NoError(t, err)
		defer db.Close()
		_, err = db.Exec(strings.TrimSuffix(statement, "#force"))
		require.NoError(t, err)
	}
	admin("CREATE DATABASE " + name)
	t.Cleanup(func() { admin("DROP DATABASE " + name + " #force") })
	u.Path = "/" + name
	return u.String()
}

func mysqlDSN(t testing.TB, from string) string {
	t.Helper()
	u, err := url.Parse(from)
	require.NoError(t, err)
	password, _ := u.User.Password()
	return u.User.Username() + ":" + password + "@tcp(" + u.Host + ")" + u.Path
}
