// Command inbox measures what handling each message once costs on PostgreSQL, in
// time relative to the business transaction alone, beside what one would write by
// hand: all in one run, interleaved, on one machine.
//
//	go run ./inbox -postgres postgres://127.0.0.1:5432/postgres
//	go run ./inbox -postgres ... -marks 3000000 -only growth
//
// It makes a database of its own on the server and drops it in the end.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
)

func main() {
	server := flag.String("postgres", "", "`URL` of a database of a PostgreSQL server")
	n := flag.Int("rounds", 25, "`N` rounds, of which the median counts")
	only := flag.String("only", "", "run only tables whose title has this `TEXT`")
	marks := flag.Int("marks", 0, "fill the inbox with `N` marks for the table about growth")
	flag.Parse()
	if err := run(context.Background(), *server, *n, *only, *marks); err != nil {
		fmt.Fprintln(os.Stderr, "inbox:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server string, n int, only string, marks int) (err error) {
	if server == "" {
		return errors.New("name a server; see -help")
	}
	dsn, drop, err := newDatabase(ctx, server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, drop()) }()
	b, err := open(ctx, dsn)
	if err != nil {
		return err
	}
	defer b.close()
	for _, t := range b.tables(marks) {
		if !strings.Contains(t.title, only) {
			continue
		}
		if t.prepare != nil {
			if err := t.prepare(); err != nil {
				return err
			}
		}
		if err := b.compare(t).Run(n); err != nil {
			return err
		}
	}
	return nil
}

// newDatabase makes a database and returns its URL and what drops it.
func newDatabase(ctx context.Context, server string) (dsn string, drop func() error, err error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", nil, fmt.Errorf("the URL of the server: %w", err)
	}
	admin := func(statement string) error {
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		_, err = conn.Exec(ctx, statement)
		return err
	}
	name := "bench_inbox_" + strings.ToLower(rand.Text()[:8])
	if err := admin("CREATE DATABASE " + name); err != nil {
		return "", nil, err
	}
	u.Path = "/" + name
	return u.String(), func() error { return admin("DROP DATABASE " + name + " WITH (FORCE)") }, nil
}
