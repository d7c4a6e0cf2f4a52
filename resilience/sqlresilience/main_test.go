package sqlresilience_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/millrace-go/millrace/internal/dialect"
	"github.com/millrace-go/millrace/internal/testdb"
	"github.com/millrace-go/millrace/resilience"
)

func TestMain(m *testing.M) {
	_ = mysql.SetLogger(&mysql.NopLogger{}) // connections are broken by intent here
	goleak.VerifyTestMain(m,                // but for what Toxiproxy leaves behind when a proxy is closed
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"))
}

// retry tries often, with pauses that a test bears.
func retry() *resilience.Retry {
	return resilience.Must(resilience.NewRetry(resilience.RetryConfig{
		Attempts: 50, Backoff: resilience.Backoff{Base: 5 * time.Millisecond, Max: 100 * time.Millisecond}, Budget: resilience.Unlimited(),
	}))
}

func breaker(failures int) *resilience.CircuitBreaker {
	return resilience.Must(resilience.NewCircuitBreaker(resilience.CircuitBreakerConfig{Failures: failures, OpenFor: time.Hour}))
}

func pipeline(policies ...resilience.Policy) *resilience.Pipeline {
	return resilience.Must(resilience.NewPipeline("test", policies...))
}

// accounts makes a table with accounts 1 and 2 of 100 each.
func accounts(t *testing.T, db testdb.DB) {
	t.Helper()
	exec(t, db.DB, "CREATE TABLE accounts (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL)")
	exec(t, db.DB, "INSERT INTO accounts VALUES (1, 100), (2, 100)")
}

func exec(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), statement, args...)
	require.NoError(t, err)
}

func amount(ctx context.Context, from interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}, d dialect.Dialect, id int) (n int, err error) {
	err = from.QueryRowContext(ctx, d.Rebind("SELECT amount FROM accounts WHERE id = ?"), id).Scan(&n)
	return n, err
}

// add changes an account by a statement that waits for others who do.
func add(ctx context.Context, tx *sql.Tx, d dialect.Dialect, id, n int) error {
	_, err := tx.ExecContext(ctx, d.Rebind("UPDATE accounts SET amount = amount + ? WHERE id = ?"), n, id)
	return err
}

// set changes an account to what was computed from a read.
func set(ctx context.Context, tx *sql.Tx, d dialect.Dialect, id, n int) error {
	_, err := tx.ExecContext(ctx, d.Rebind("UPDATE accounts SET amount = ? WHERE id = ?"), n, id)
	return err
}

// meeting lets those who come first go on together.
type meeting struct {
	mu    sync.Mutex
	left  int
	ready chan struct{}
}

func meet(n int) *meeting { return &meeting{left: n, ready: make(chan struct{})} }

// join waits for the others; who comes late does not wait.
func (m *meeting) join() {
	m.mu.Lock()
	m.left--
	if m.left == 0 {
		close(m.ready)
	}
	m.mu.Unlock()
	<-m.ready
}

// connector opens connections as the database's driver does, to another address
// if one is given.
func connector(t *testing.T, db testdb.DB, addr string) driver.Connector {
	t.Helper()
	dsn := db.DSN
	if addr != "" {
		dsn = strings.Replace(dsn, server(t, db), addr, 1)
	}
	d, ok := db.DB.Driver().(driver.DriverContext)
	if !ok {
		return plain{db.DB.Driver(), dsn}
	}
	c, err := d.OpenConnector(dsn)
	require.NoError(t, err)
	return c
}

type plain struct {
	driver driver.Driver
	dsn    string
}

func (p plain) Connect(context.Context) (driver.Conn, error) { return p.driver.Open(p.dsn) }
func (p plain) Driver() driver.Driver                        { return p.driver }

// server returns the address of a database's server.
func server(t *testing.T, db testdb.DB) string {
	t.Helper()
	if db.Dialect == dialect.MySQL {
		cfg, err := mysql.ParseDSN(db.DSN)
		require.NoError(t, err)
		return cfg.Addr
	}
	u, err := url.Parse(db.DSN)
	require.NoError(t, err)
	return u.Host
}

// proxied returns a proxy to a database's server.
func proxied(t *testing.T, db testdb.DB) *toxiproxy.Proxy {
	t.Helper()
	srv := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	p := toxiproxy.NewProxy(srv, t.Name(), "127.0.0.1:0", server(t, db))
	require.NoError(t, p.Start())
	t.Cleanup(p.Stop)
	return p
}

// swallow has answers vanish while connections stay open.
func swallow(t *testing.T, p *toxiproxy.Proxy) {
	t.Helper()
	_, err := p.Toxics.AddToxicJson(strings.NewReader(`{"name":"hole","type":"timeout","stream":"downstream","attributes":{"timeout":0}}`))
	require.NoError(t, err)
}

func open(t *testing.T, c driver.Connector) *sql.DB {
	t.Helper()
	db := sql.OpenDB(c)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}
