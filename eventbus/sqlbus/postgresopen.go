package sqlbus

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// OpenPostgres opens a database on a PostgreSQL server, version 12 or newer, by
// a URL as in the package comment; its parameters override c. Unless c says
// otherwise, it creates the tables where they are missing. It reports every
// invalid field or parameter, and what is wrong with the way to the server; it
// does not try again. ctx bounds the opening only. The caller closes the Broker.
func OpenPostgres(ctx context.Context, rawURL string, c Config) (*Broker, error) {
	a, err := parseServer(rawURL, "5432", &c)
	if err != nil {
		return nil, err
	}
	listen := !c.NoListen
	a.params.Bool("listen", &listen)
	passed := passOn(a, "sslmode", "sslrootcert", "sslcert", "sslkey", "search_path", "target_session_attrs", "application_name")
	if err := a.finish(&c); err != nil {
		return nil, err
	}
	pgxConfig, err := configurePostgres(a, passed, c.TLS)
	if err != nil {
		return nil, fmt.Errorf("sqlbus: open %s: %w", a, err)
	}
	l := newListener(pgxConfig)
	if c.NoListen = !listen; c.NoListen {
		l.cfg = nil
	}
	s, err := newServer(ctx, a.String(), &postgres{l}, stdlib.OpenDB(*pgxConfig), c)
	if err != nil {
		return nil, fmt.Errorf("sqlbus: open %w", err)
	}
	return newBroker(s, c), nil
}

// passOn returns the parameters that are the database driver's business.
func passOn(a address, names ...string) url.Values {
	passed := url.Values{}
	for _, name := range names {
		value := ""
		if a.params.String(name, &value); value != "" {
			passed.Set(name, value)
		}
	}
	return passed
}

func configurePostgres(a address, passed url.Values, secure *tls.Config) (*pgx.ConnConfig, error) {
	u := *a.url
	u.RawQuery = passed.Encode()
	cfg, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, err // without the password
	}
	if secure != nil {
		cfg.TLSConfig, cfg.Fallbacks = secure.Clone(), nil
		if cfg.TLSConfig.ServerName == "" {
			cfg.TLSConfig.ServerName = a.url.Hostname()
		}
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "millrace"
	}
	// Statements without a name: a pooler may run the next one elsewhere.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	cfg.ConnectTimeout = connectTimeout
	cfg.DialFunc = keepAlive.DialContext
	cfg.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) {}
	return cfg, nil
}
