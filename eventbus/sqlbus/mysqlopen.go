package sqlbus

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// OpenMySQL opens a database on a server of MySQL, version 8 or newer, or
// MariaDB, 10.6 or newer, by a URL as in the package comment; its parameters
// override c. Unless c says otherwise, it creates the tables where they are
// missing. It reports every invalid field or parameter, and what is wrong with
// the way to the server; it does not try again. ctx bounds the opening only. The
// caller closes the Broker.
func OpenMySQL(ctx context.Context, rawURL string, c Config) (*Broker, error) {
	a, err := parseServer(rawURL, "3306", &c)
	if err != nil {
		return nil, err
	}
	var t tlsParams
	a.params.Enum("tls", &t.mode, "true", "false", "skip-verify", "preferred")
	a.params.String("tls_ca", &t.ca)
	a.params.String("tls_cert", &t.cert)
	a.params.String("tls_key", &t.key)
	if err := a.finish(&c); err != nil {
		return nil, err
	}
	if a.url.Path == "" || a.url.Path == "/" {
		return nil, fmt.Errorf("sqlbus: open %s: the URL names no database; write mysql://user:password@host:port/database", a)
	}
	cfg, err := configureMySQL(a, t, c.TLS)
	if err != nil {
		return nil, fmt.Errorf("sqlbus: open %s: %w", a, err)
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("sqlbus: open %s: %w", a, err)
	}
	f := &mysqlServer{}
	s, err := newServer(ctx, a.String(), f, sql.OpenDB(mysqlConnector{connector}), c)
	if err != nil {
		return nil, fmt.Errorf("sqlbus: open %w", err)
	}
	if need := 2*c.MaxPayload + packetOverhead; need > f.packet {
		_ = s.close() // the first error counts
		return nil, fmt.Errorf("sqlbus: open %s: payloads of up to %d bytes need a max_allowed_packet of %d on the server, it has %d; raise it or lower max_payload", a, c.MaxPayload, need, f.packet)
	}
	return newBroker(s, c), nil
}

func configureMySQL(a address, t tlsParams, secure *tls.Config) (*mysql.Config, error) {
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr, cfg.DBName = "tcp", a.url.Host, strings.TrimPrefix(a.url.Path, "/")
	cfg.User = a.url.User.Username()
	cfg.Passwd, _ = a.url.User.Password()
	cfg.DialFunc = keepAlive.DialContext
	cfg.Timeout = connectTimeout
	cfg.ReadTimeout, cfg.WriteTimeout = networkTimeout, networkTimeout // contexts end sooner
	cfg.MaxAllowedPacket = 0                                           // the server's
	// A transaction of several statements takes one round trip.
	cfg.MultiStatements, cfg.InterpolateParams, cfg.ClientFoundRows = true, true, true
	cfg.Logger = log.New(io.Discard, "", 0) // errors are returned as well
	var err error
	if cfg.TLS, err = t.config(a.url.Hostname()); err != nil {
		return nil, err
	}
	cfg.AllowFallbackToPlaintext = t.mode == "preferred"
	if secure != nil {
		cfg.TLS, cfg.AllowFallbackToPlaintext = secure.Clone(), false
		if cfg.TLS.ServerName == "" {
			cfg.TLS.ServerName = a.url.Hostname()
		}
	}
	return cfg, nil
}

// tlsParams are the parameters of a URL that are about TLS.
type tlsParams struct{ mode, ca, cert, key string }

func (t tlsParams) config(host string) (*tls.Config, error) {
	files := t.ca != "" || t.cert != "" || t.key != ""
	switch t.mode {
	case "", "false":
		if files {
			return nil, errors.New("tls_ca, tls_cert and tls_key need tls=true, skip-verify or preferred")
		}
		return nil, nil
	}
	c := &tls.Config{ServerName: host, InsecureSkipVerify: t.mode != "true"}
	if t.ca != "" {
		pem, err := os.ReadFile(t.ca)
		if err != nil {
			return nil, fmt.Errorf("tls_ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls_ca: %s holds no certificate", t.ca)
		}
	}
	if t.cert != "" || t.key != "" {
		pair, err := tls.LoadX509KeyPair(t.cert, t.key)
		if err != nil {
			return nil, fmt.Errorf("tls_cert and tls_key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// mysqlConnector sets up every connection.
type mysqlConnector struct{ sqldriver.Connector }

// mysqlSession leaves nothing to the server's defaults on which correctness
// depends. A connection that says nothing for a minute is cut by the server, so
// that the locks of a hung process don't stay.
const mysqlSession = `SET SESSION sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', time_zone = '+00:00', autocommit = 1, innodb_lock_wait_timeout = 1, wait_timeout = 60; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED`

// Connect implements driver.Connector.
func (c mysqlConnector) Connect(ctx context.Context) (sqldriver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	execer := conn.(sqldriver.ExecerContext)
	if _, err := execer.ExecContext(ctx, mysqlSession, nil); err != nil {
		_ = conn.Close() // the first error counts
		return nil, err
	}
	// MariaDB alone tells a connection that is idle within a transaction.
	if _, err := execer.ExecContext(ctx, "SET SESSION idle_transaction_timeout = 10", nil); err != nil && mysqlCode(err) == 0 {
		_ = conn.Close() // the first error counts
		return nil, err
	}
	return conn, nil
}
