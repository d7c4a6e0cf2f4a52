package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/millrace-go/millrace/outbox"
)

// open makes a database and the tables that are compared.
func open(ctx context.Context, dialect, server string, p plan) (*bench, error) {
	b := &bench{plan: p, ctx: ctx}
	var dsn string
	var err error
	driver := dialect
	switch dialect {
	case "postgres":
		driver, b.dialect, b.name = "pgx", outbox.Postgres, "PostgreSQL"
		dsn, err = b.create("pgx", cmp.Or(server, os.Getenv("MILLRACE_TEST_POSTGRES_URL")), " WITH (FORCE)", func(u *url.URL) string { return u.String() })
	case "mysql":
		b.dialect, b.name = outbox.MySQL, "MariaDB"
		dsn, err = b.create("mysql", cmp.Or(server, os.Getenv("MILLRACE_TEST_MYSQL_URL")), "", mysqlDSN)
	case "sqlite":
		b.dialect, b.name = outbox.SQLite, "SQLite"
		var dir string
		dir, err = os.MkdirTemp("", "bench-outbox-")
		dsn = "file:" + filepath.Join(dir, "bench.db") + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"
		b.drop = func() error { return os.RemoveAll(dir) }
	default:
		err = fmt.Errorf("-dialect: %q is none of postgres, mysql and sqlite", dialect)
	}
	if err != nil {
		return nil, err
	}
	if err := b.setUp(driver, dsn); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func mysqlDSN(u *url.URL) string {
	return strings.TrimSuffix(u.User.String(), ":") + "@tcp(" + u.Host + ")" + u.Path + "?parseTime=true"
}

// create makes a database on a server and returns how to connect to it.
func (b *bench) create(driver, server, force string, dsn func(*url.URL) string) (string, error) {
	if server == "" {
		return "", errors.New("name a server by -url")
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", errors.New("-url: not a URL")
	}
	base := dsn(u)
	admin := func(statement string) error {
		db, err := sql.Open(driver, base)
		if err != nil {
			return err
		}
		defer db.Close()
		_, err = db.Exec(statement)
		return err
	}
	name := "bench_outbox_" + strings.ToLower(rand.Text()[:8])
	if err := admin("CREATE DATABASE " + name); err != nil {
		return "", err
	}
	b.drop = func() error { return admin("DROP DATABASE " + name + force) }
	u.Path = "/" + name
	return dsn(u), nil
}
