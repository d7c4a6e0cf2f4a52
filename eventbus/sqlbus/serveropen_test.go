package sqlbus

import (
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"github.com/millrace-go/millrace/eventbus/driver"
)

func TestServerURLParametersReachTheConfig(t *testing.T) {
	onServers(t, func(t *testing.T, rawURL string) {
		u, err := url.Parse(rawURL)
		require.NoError(t, err)
		q := u.Query()
		for name, value := range map[string]string{"lease": "2s", "retention": "1h", "poll": "5ms", "max_payload": "100", "connections": "3", "provision": "true"} {
			q.Set(name, value)
		}
		u.RawQuery = q.Encode()
		opened, err := driver.Open(t.Context(), u.String(), driver.Options{Logger: quiet()})
		require.NoError(t, err)
		defer opened.Close()
		b := opened.(*Broker)
		require.Equal(t, []any{2 * time.Second, time.Hour, 5 * time.Millisecond, 100, 3},
			[]any{b.cfg.Lease, b.cfg.Retention, b.cfg.Poll, b.cfg.MaxPayload, b.cfg.Connections})
		require.Equal(t, 3, b.engine.(*server).db.Stats().MaxOpenConnections)
		require.NotContains(t, b.store.name, "?")
	})
}

func TestBadServerURLsAreRefused(t *testing.T) {
	for u, want := range map[string]string{
		"postgres:":                                "write postgres://user:password@host:5432/database",
		"postgres:host/db":                         "write scheme://",
		"postgres://u:geheim@h/db?lese=1s":         `did you mean "lease"`,
		"postgres://u:geheim@h/db?sslmode=maybe":   "sslmode",
		"postgres://u:geheim@h/db?connections=1":   "from 2 to 1000",
		"postgres://u:geheim@h/db?listen=perhaps":  "true or false",
		"postgresql://u:geheim@h/db?tls=true":      `unknown parameter "tls"`,
		"mysql://u:geheim@h":                       "names no database",
		"mysql://u:geheim@h/db?listen=true":        `unknown parameter "listen"`,
		"mysql://u:geheim@h/db?tls=perhaps":        "true, false, skip-verify, preferred",
		"mysql://u:geheim@h/db?tls_ca=x.pem":       "need tls=true",
		"mysql://u:geheim@h/db?tls=true&tls_ca=/x": "tls_ca: open /x",
	} {
		_, err := driver.Open(t.Context(), u, driver.Options{})
		require.ErrorContains(t, err, want, u)
		require.NotContains(t, err.Error(), "geheim")
	}
}

// change returns rawURL with something else in it.
func change(t *testing.T, rawURL string, how func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(rawURL)
	require.NoError(t, err)
	how(u)
	return u.String()
}

func TestErrorsOfOpeningAServerSayWhatToDo(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, closed.Close())
	onServers(t, func(t *testing.T, rawURL string) {
		for want, how := range map[string]func(*url.URL){
			"nothing listens there":                func(u *url.URL) { u.Host = closed.Addr().String() },
			"the host name can't be resolved":      func(u *url.URL) { u.Host = "no-such-host.invalid" },
			"there is no such database; create it": func(u *url.URL) { u.Path = "/no_such_database" },
			"the server does not speak TLS": func(u *url.URL) {
				if u.Scheme == "mysql" {
					u.RawQuery = "tls=true"
				} else {
					u.RawQuery = "sslmode=require"
				}
			},
		} {
			_, err := openServer(t.Context(), change(t, rawURL, how), Config{})
			require.ErrorContains(t, err, want)
		}
		_, err := openServer(t.Context(), rawURL, Config{TLS: &tls.Config{MinVersion: tls.VersionTLS12}})
		require.ErrorContains(t, err, "the server does not speak TLS")
		_, err = openServer(t.Context(), rawURL, Config{NoProvision: true})
		require.ErrorContains(t, err, "lacks the tables of a bus, and provisioning is off: create them with the statements of sqlbus.Schema")
	})
}

// user creates one with a password, who may use the database as granted.
func user(t *testing.T, rawURL string, grants ...string) *url.URL {
	t.Helper()
	u, err := url.Parse(rawURL)
	require.NoError(t, err)
	name := strings.TrimPrefix(u.Path, "/")[:20]
	db := rawDB(t, rawURL)
	defer db.Close()
	create, drop := "CREATE ROLE "+name+" LOGIN PASSWORD 'geheim'", "DROP OWNED BY "+name+"; DROP ROLE "+name
	if u.Scheme == "mysql" {
		create, drop = "CREATE USER "+name+" IDENTIFIED BY 'geheim'", "DROP USER "+name
	}
	for _, statement := range append([]string{create}, grants...) {
		_, err := db.Exec(strings.ReplaceAll(statement, "{user}", name))
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		db := rawDB(t, rawURL)
		defer db.Close()
		_, err := db.ExecContext(context.Background(), drop)
		require.NoError(t, err)
	})
	u.User = url.UserPassword(name, "geheim")
	return u
}

func TestUsersWithFewRights(t *testing.T) {
	onServers(t, func(t *testing.T, rawURL string) {
		u := user(t, rawURL)
		if u.Scheme == "mysql" {
			wrong := *u
			wrong.User = url.UserPassword(u.User.Username(), "falsch")
			_, err := openServer(t.Context(), wrong.String(), Config{})
			require.ErrorContains(t, err, "the server refuses user or password")
			require.NotContains(t, err.Error(), "falsch")
		}
		_, err := openServer(t.Context(), u.String(), Config{})
		require.ErrorContains(t, err, "the user lacks a privilege; grant it, or create the tables with the statements of sqlbus.Schema")
		require.NotContains(t, err.Error(), "geheim")
	})
}

func TestTablesCreatedAhead(t *testing.T) {
	onServers(t, func(t *testing.T, rawURL string) {
		db := rawDB(t, rawURL)
		defer db.Close()
		dialect, grant := Postgres, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {user}"
		if strings.HasPrefix(rawURL, "mysql") {
			dialect, grant = MySQL, "GRANT SELECT, INSERT, UPDATE, DELETE ON millrace_events TO {user}"
		}
		for statement := range strings.SplitSeq(strings.TrimSpace(Schema(dialect)), ";\n") {
			_, err := db.Exec(strings.TrimSuffix(statement, ";"))
			require.NoError(t, err, statement)
		}
		grants := []string{grant}
		if dialect == MySQL {
			for _, table := range []string{"meta", "topics", "batches", "due", "groups", "members", "exceptions"} {
				grants = append(grants, strings.Replace(grant, "events", table, 1))
			}
		}
		b := openOn(t, user(t, rawURL, grants...).String(), Config{NoProvision: true})
		got := make(chan *driver.Delivery, 1)
		start(t, b, driver.Subscription{Handle: into(got)})
		require.NoError(t, b.Publish("t", msg("k", 1)))
		require.Equal(t, "1", text(receive(t, got)))
	})
}

func TestReadOnlyServersAreRefused(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		rawURL := newDatabase(t, "postgres")
		db := rawDB(t, rawURL)
		defer db.Close()
		b := openOn(t, rawURL, Config{})
		u, err := url.Parse(rawURL)
		require.NoError(t, err)
		_, err = db.Exec("ALTER DATABASE " + strings.TrimPrefix(u.Path, "/") + " SET default_transaction_read_only = on")
		require.NoError(t, err)
		_, err = openServer(t.Context(), rawURL, Config{})
		require.ErrorContains(t, err, "the server takes no writes")
		cutAll(t, db, rawURL)
		eventually(t, "new connections are read-only", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			m := msg("k", 1)
			m.SetContext(ctx)
			err := b.Publish("t", m)
			return err != nil && strings.Contains(err.Error(), "the server takes no writes")
		})
	})
	t.Run("mysql", func(t *testing.T) {
		require.Contains(t, (&mysqlServer{}).meaning(&mysql.MySQLError{Number: 1290, Message: "--read-only"}), "the server takes no writes")
	})
}

func TestManyOpenTheSameNewDatabase(t *testing.T) {
	onServers(t, func(t *testing.T, rawURL string) {
		errs := make(chan error, 8)
		for range 8 {
			go func() {
				b, err := openServer(t.Context(), rawURL, Config{Connections: 2})
				if err == nil {
					err = b.Publish("t", msg("k", 1))
					_ = b.Close()
				}
				errs <- err
			}()
		}
		for range 8 {
			require.NoError(t, receive(t, errs))
		}
		require.Equal(t, 8, count(t, openOn(t, rawURL, Config{NoProvision: true}), "SELECT count(*) FROM millrace_events"))
	})
}

func TestOpenRefusesNewerTablesOnServers(t *testing.T) {
	onServers(t, func(t *testing.T, rawURL string) {
		openOn(t, rawURL, Config{})
		db := rawDB(t, rawURL)
		defer db.Close()
		_, err := db.Exec("UPDATE millrace_meta SET value = 99 WHERE name = 'schema'")
		require.NoError(t, err)
		_, err = openServer(t.Context(), rawURL, Config{})
		require.ErrorContains(t, err, "version 99")
	})
}

// The tables are a stored format: a change needs a new version, and a golden of
// its own.
func TestSchemasAreThoseOfV1(t *testing.T) {
	for _, d := range []Dialect{Postgres, MySQL} {
		golden, err := os.ReadFile(filepath.Join("testdata", "v1", string(d)+".sql"))
		require.NoError(t, err)
		require.Equal(t, string(golden), Schema(d))
	}
	require.Panics(t, func() { Schema("oracle") })
}
