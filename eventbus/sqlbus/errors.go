package sqlbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// retryBusy calls f until it does not fail for a lock held by somebody else.
func retryBusy(ctx context.Context, f func() error) error {
	for {
		err := f()
		if !isBusy(err) {
			return err
		}
		select {
		case <-time.After(jitter(20 * time.Millisecond)):
		case <-ctx.Done():
			return err
		}
	}
}

func resultCode(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code() & 0xff // the rest refines it
	}
	return sqlite3.SQLITE_OK
}

func isBusy(err error) bool {
	code := resultCode(err)
	return code == sqlite3.SQLITE_BUSY || code == sqlite3.SQLITE_LOCKED
}

// explain puts the file and, where SQLite is terse, what it means before err.
func explain(path string, err error) error {
	if err == nil {
		return nil
	}
	meaning := map[int]string{
		sqlite3.SQLITE_FULL:     "the disk or the database is full",
		sqlite3.SQLITE_READONLY: "the file can't be written to",
		sqlite3.SQLITE_NOTADB:   "the file is not a SQLite database, or an encrypted one",
		sqlite3.SQLITE_CORRUPT:  "the database is damaged; restore it from a backup or try the .recover command of the sqlite3 shell",
		sqlite3.SQLITE_CANTOPEN: "the file, or the -wal and -shm files beside it, can't be opened",
		sqlite3.SQLITE_BUSY:     "another process holds the file",
		sqlite3.SQLITE_IOERR:    "reading or writing failed",
	}[resultCode(err)]
	if meaning == "" {
		return fmt.Errorf("%s: %w", path, err)
	}
	return fmt.Errorf("%s: %s: %w", path, meaning, err)
}
