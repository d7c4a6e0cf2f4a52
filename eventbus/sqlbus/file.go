package sqlbus

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	_ "modernc.org/sqlite" // the database/sql driver
)

// openTimeout bounds how long Open waits for other processes that hold the file.
const openTimeout = 15 * time.Second

// file is an open database file: one connection that writes, a few that read.
type file struct {
	path       string
	writeDB    *sql.DB
	writeConn  *sql.Conn
	readDB     *sql.DB
	write      *session
	read       *session
	partitions int
}

func openFile(ctx context.Context, path string, provision bool) (*file, error) {
	if err := checkExists(path, provision); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	f := &file{path: path}
	err := retryBusy(ctx, func() error { return f.connect(ctx, provision) })
	if err != nil {
		_ = f.close() // the first error counts
		return nil, explain(path, err)
	}
	return f, nil
}

// checkExists gives the errors that SQLite would only call "unable to open".
func checkExists(path string, provision bool) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case !provision:
		return fmt.Errorf("%s does not exist, and provisioning is off: create it by opening it once with provisioning", path)
	}
	return os.MkdirAll(filepath.Dir(path), 0o755)
}

func dsn(path, mode string, pragmas ...string) string {
	q := url.Values{"mode": {mode}, "_txlock": {"immediate"}}
	q["_pragma"] = append([]string{"busy_timeout(2000)"}, pragmas...)
	return (&url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: q.Encode()}).String()
}

func (f *file) connect(ctx context.Context, provision bool) (err error) {
	if err := f.close(); err != nil { // of the attempt before
		return err
	}
	mode := "rw"
	if provision {
		mode = "rwc"
	}
	// journal_size_limit gives the space back that a burst took.
	f.writeDB, err = sql.Open("sqlite", dsn(f.path, mode, "journal_mode(WAL)", "synchronous(FULL)", "journal_size_limit(67108864)"))
	if err != nil {
		return err
	}
	f.writeDB.SetMaxOpenConns(1)
	if f.writeConn, err = f.writeDB.Conn(ctx); err != nil {
		return err
	}
	f.write = newSession(f.writeConn)
	if err := f.prepareTables(provision); err != nil {
		return err
	}
	if f.readDB, err = sql.Open("sqlite", dsn(f.path, "rw", "query_only(1)")); err != nil {
		return err
	}
	f.readDB.SetMaxOpenConns(4)
	f.readDB.SetMaxIdleConns(4)
	f.read = newSession(f.readDB)
	return f.readMeta()
}

// close releases what is open. It may be called again, and on half an open file.
func (f *file) close() error {
	var errs []error
	if f.read != nil {
		f.read.close()
	}
	if f.readDB != nil {
		errs = append(errs, f.readDB.Close())
	}
	if f.write != nil {
		f.write.close()
	}
	if f.writeConn != nil {
		errs = append(errs, f.writeConn.Close())
	}
	if f.writeDB != nil {
		errs = append(errs, f.writeDB.Close())
	}
	*f = file{path: f.path}
	return errors.Join(errs...)
}
