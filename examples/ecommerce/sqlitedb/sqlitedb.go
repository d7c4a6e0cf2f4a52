// Package sqlitedb opens the SQLite files of the shop's services.
package sqlitedb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"time"

	_ "modernc.org/sqlite" // the driver named "sqlite"
)

// settings of a service's database: readers don't wait for the writer (WAL), a
// commit is on the disk before it is reported (synchronous FULL), and a
// transaction takes the write lock when it begins, so that it waits for its
// turn instead of failing half way.
var settings = url.Values{
	"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"},
	"_txlock": {"immediate"},
}

// Open opens the file, which is made if need be, and creates what schema has
// and the file has not.
func Open(ctx context.Context, file, schema string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn(file, settings))
	if err != nil {
		return nil, fmt.Errorf("sqlitedb: open %s: %w", file, err)
	}
	db.SetMaxOpenConns(4) // one writes, the others read
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlitedb: create the schema in %s: %w", file, err), db.Close())
	}
	return db, nil
}

// Read calls fn with a snapshot of a file that belongs to somebody else.
func Read(ctx context.Context, file string, fn func(*sql.Tx) error) error {
	db, err := sql.Open("sqlite", dsn(file, url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(10000)"}}))
	if err != nil {
		return fmt.Errorf("sqlitedb: open %s: %w", file, err)
	}
	defer db.Close()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("sqlitedb: read %s: %w", file, err)
	}
	defer tx.Rollback()
	if err := fn(tx); err != nil {
		return fmt.Errorf("sqlitedb: read %s: %w", file, err)
	}
	return nil
}

func dsn(file string, query url.Values) string {
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(), RawQuery: query.Encode()}).String()
}

// Time formats t as the shop stores it: as text that sorts by time.
func Time(t time.Time) string { return t.UTC().Format(timeFormat) }

// ParseTime reads what Time wrote.
func ParseTime(s string) (time.Time, error) { return time.Parse(timeFormat, s) }

const timeFormat = "2006-01-02T15:04:05.000000Z07:00"
